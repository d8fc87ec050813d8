// Sums, means, products and extremes of all that falls into the same place or the same segment.
#include <ATen/ops/arange.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/searchsorted.h>

#include "forward_ad/conform.h"
#include "forward_ad/rule.h"
#include "reverse_ad/recordable.h"

namespace functx {
namespace {

// What two operators have that write `source` into places of `self`: all of it at the `index` in a
// dimension, or each element at an index of its own.
struct ByRow {
  using Op = ops::index_reduce;
  static Tensor add(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& source) {
    return self.index_add(dim, index, source);
  }
  static Tensor read(const Tensor& x, int64_t dim, const Tensor& index) {
    return x.index_select(dim, index);
  }
  static Tensor zero(const Tensor& x, int64_t dim, const Tensor& index) {
    return x.index_fill(dim, index, 0);
  }
};

struct ByElement {
  using Op = ops::scatter_reduce_two;
  static Tensor add(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& source) {
    return self.scatter_add(dim, index, source);
  }
  static Tensor read(const Tensor& x, int64_t dim, const Tensor& index) {
    return x.gather(dim, index);
  }
  static Tensor zero(const Tensor& x, int64_t dim, const Tensor& index) {
    return x.scatter(dim, index, 0);
  }
};

// The product rule, without a division by zero. Each place holds the product of its factors other
// than zero; a single zero leaves the term of its own change.
template <class By>
Tensor product_tangent(Dual self, int64_t dim, const Tensor& index, const Dual& source,
                       bool include_self, const Tensor& result) {
  if (!include_self) {  // then a factor of one
    const Tensor is_hit = By::zero(at::ones_like(self.primal), dim, index).eq(0);
    self = {self.primal.masked_fill(is_hit, 1), self.tangent.masked_fill(is_hit, 0)};
  }
  const auto accumulate = [&](const auto& term) {
    return By::add(term(self), dim, index, term(source));
  };
  const auto factor = [](const Dual& x) { return x.primal.masked_fill(x.primal.eq(0), 1); };
  const Tensor nonzero =
      By::Op::call(factor(self), dim, index, factor(source), "prod", /*include_self=*/true);
  const Tensor zeros =
      accumulate([](const Dual& x) { return x.primal.eq(0).to(x.primal.scalar_type()); });
  const Tensor relative = accumulate(
      [&](const Dual& x) { return x.tangent.div(factor(x)).masked_fill(x.primal.eq(0), 0); });
  const Tensor of_zero =
      accumulate([](const Dual& x) { return zero_unless(x.primal.eq(0), x.tangent); });
  return result.mul(relative).add(zero_unless(zeros.eq(1), nonzero.mul(of_zero)));
}

// Elements that tie share in the change.
template <class By>
Tensor extreme_tangent(const Dual& self, int64_t dim, const Tensor& index, const Dual& source,
                       bool include_self, const Tensor& result) {
  const auto type = result.scalar_type();
  const Tensor self_wins = self.primal.eq(result).to(type);
  const Tensor source_wins = source.primal.eq(By::read(result, dim, index)).to(type);
  const Tensor own = self.tangent.mul(self_wins);
  const Tensor change = By::add(include_self ? own : By::zero(own, dim, index), dim, index,
                                source.tangent.mul(source_wins));
  return change.div(By::add(self_wins, dim, index, source_wins));
}

// `scatter` leaves out what is beyond the index.
Tensor within(Tensor source, const Tensor& index) {
  if (source.dim() != index.dim()) {
    return source;
  }
  for (int64_t d = 0; d < source.dim(); ++d) {
    source = source.narrow_symint(d, 0, index.sym_size(d));
  }
  return source;
}

template <class By>
Dual accumulate(const Dual& self, int64_t dim, const Dual& indices, const Dual& values,
                c10::string_view reduce, bool include_self) {
  const Tensor& index = indices.primal;
  Tensor result = By::Op::call(self.primal, dim, index, values.primal, reduce, include_self);
  const Dual target{self.primal, tangent_or_zeros(self)};
  Dual source{values.primal, tangent_or_zeros(values)};
  if constexpr (std::is_same_v<By, ByElement>) {
    source = {within(source.primal, index), within(source.tangent, index)};
  }
  Tensor tangent;
  if (reduce == "sum" || reduce == "mean") {
    tangent = By::Op::call(target.tangent, dim, index, source.tangent, reduce, include_self);
  } else if (reduce == "prod") {
    tangent = product_tangent<By>(target, dim, index, source, include_self, result);
  } else {
    tangent = extreme_tangent<By>(target, dim, index, source, include_self, result);
  }
  return conform(std::move(tangent), std::move(result));
}

// Sums and means are linear. For the rest, every element falls into one segment, so the gradient of
// the sum of all results holds its slope; that of an extreme is piecewise constant.
Dual segment_reduce(const Dual& data, c10::string_view reduce, const Dual& lengths,
                    const Dual& indices, const Dual& offsets, int64_t axis, bool unsafe,
                    const std::optional<at::Scalar>& initial) {
  const auto given = [](const Dual& x) {
    return x.defined() ? std::make_optional(x.primal) : std::nullopt;
  };
  const auto call = [&](const Tensor& x, c10::string_view how,
                        const std::optional<at::Scalar>& start) {
    return ops::segment_reduce::call(x, how, given(lengths), given(indices), given(offsets), axis,
                                     unsafe, start);
  };
  Tensor primal = call(data.primal, reduce, initial);
  if (reduce == "sum" || reduce == "mean") {
    const auto zero = initial.has_value() ? std::make_optional(at::Scalar(0)) : initial;
    return {std::move(primal), call(data.tangent, reduce, zero)};
  }
  const bool is_product = reduce == "prod";
  const Tensor slopes = ops::_segment_reduce_backward::call(
      primal.new_ones_symint(primal.sym_sizes()), is_product ? primal : primal.detach(),
      is_product ? data.primal : data.primal.detach(), reduce, given(lengths), given(offsets), axis,
      initial);
  Tensor tangent = call(slopes.mul(data.tangent), "sum", 0);
  return {std::move(primal), std::move(tangent)};
}

// That of a product is its gradient times product over element, for elements other than zero.
Dual segment_reduce_backward(const Dual& grad, const Dual& output, const Dual& data,
                             c10::string_view reduce, const Dual& lengths, const Dual& offsets,
                             int64_t axis, const std::optional<at::Scalar>& initial) {
  const auto given = [](const Dual& x) {
    return x.defined() ? std::make_optional(x.primal) : std::nullopt;
  };
  const auto backward = [&](const Tensor& g, const Tensor& result) {
    return ops::_segment_reduce_backward::call(g, result, data.primal, reduce, given(lengths),
                                               given(offsets), axis, initial);
  };
  Tensor primal = backward(grad.primal, output.primal);
  Tensor tangent;
  if (grad.has_tangent()) {
    tangent = backward(grad.tangent, output.primal);
  }
  if (reduce == "prod" && output.has_tangent()) {
    tangent = sum_of(std::move(tangent), backward(grad.primal, output.tangent));
  }
  if (reduce == "prod" && data.has_tangent()) {
    tangent = sum_of(std::move(tangent), primal.mul(data.tangent).div(data.primal).neg());
  }
  return {std::move(primal), std::move(tangent)};
}

// The same gradient, in operators that can be differentiated.
std::optional<Tensor> segment_gradient(const Tensor& grad, const Tensor& output, const Tensor& data,
                                       c10::string_view reduce,
                                       const std::optional<Tensor>& lengths,
                                       const std::optional<Tensor>& offsets, int64_t axis,
                                       const std::optional<at::Scalar>& initial) {
  const bool is_product = reduce == "prod";
  if (is_product && as_wrapper(data) == nullptr && data.eq(0).any().item<bool>()) {
    return std::nullopt;
  }
  const Tensor ends =
      lengths.has_value() && lengths->defined() ? lengths->cumsum(-1) : offsets->slice(-1, 1);
  std::vector<int64_t> places = ends.sizes().vec();
  places.back() = data.size(axis);
  const Tensor place = at::arange(places.back(), ends.options()).expand(places).contiguous();
  Tensor segment = at::searchsorted(ends.contiguous(), place, /*out_int32=*/false, /*right=*/true);
  segment = segment.clamp_max(ends.size(-1) - 1);
  while (segment.dim() < data.dim()) {
    segment = segment.unsqueeze(-1);
  }
  const auto spread = [&](const Tensor& x) { return x.gather(axis, segment.expand(data.sizes())); };
  if (is_product) {
    return spread(grad.mul(output)).div(data);
  }
  const Tensor slopes = ops::_segment_reduce_backward::call(
      grad.detach().new_ones_symint(grad.sym_sizes()), output.detach(), data.detach(), reduce,
      lengths, offsets, axis, initial);
  return slopes.mul(spread(grad));
}

}  // namespace

FUNCTX_RULES(gradients_of_segments) {
  recordable<ops::_segment_reduce_backward, segment_gradient>();
}

FUNCTX_RULES(jvp_accumulation) {
  dual_rule<ops::index_reduce, accumulate<ByRow>>();
  dual_rule<ops::scatter_reduce_two, accumulate<ByElement>>();
  dual_rule<ops::segment_reduce, segment_reduce>();
  dual_rule<ops::_segment_reduce_backward, segment_reduce_backward>();
}

}  // namespace functx
