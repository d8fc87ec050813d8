// Products of all entries, or along a dim. Their derivatives are the products of all other entries,
// which are there at zeros too, and may be numbers where the product of all is too large for one.
#include <ATen/WrapDimUtils.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/exp2.h>
#include <ATen/ops/frexp.h>
#include <ATen/ops/ones_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "forward_ad/conform.h"
#include "forward_ad/scans.h"
#include "reverse_ad/differentiated.h"
#include "reverse_ad/revised.h"
#include "reverse_ad/values.h"

namespace functx {
namespace {

// ---- the products of all other entries ----

Tensor products_of_preceding(const Tensor& x, int64_t dim) {
  const Tensor first = at::ones_like(x.narrow(dim, 0, 1));
  Tensor result = at::cat({first, x.narrow(dim, 0, x.size(dim) - 1)}, dim);
  if (!is_differentiated(x)) {
    return result.cumprod(dim);
  }
  for (const Step& step : steps_along(result, dim)) {
    result = step.join(result, step.here(result).mul(step.before(result)));
  }
  return result;
}

Tensor products_of_others(const Tensor& x, int64_t dim) {
  const Tensor following = products_of_preceding(x.flip(dim), dim).flip(dim);
  return products_of_preceding(x, dim).mul(following);
}

// The largest power of two that the numbers of a type are taken apart to; none of those that have
// not enough digits for it to matter.
double largest_power(at::ScalarType type) {
  switch (c10::toRealValueType(type)) {
    case at::kDouble:
      return 1000;
    case at::kFloat:
      return 120;
    default:
      return 0;
  }
}

// Whether a product of `count` entries may leave the range of numbers, in whatever order.
bool may_overflow(const Tensor& plain, int64_t count) {
  const Sizes sizes = sizes_of(plain);
  const double power =
      std::max(std::abs(std::log2(sizes.smallest)), std::abs(std::log2(sizes.largest)));
  return sizes.largest > 0 &&
         static_cast<double>(count) * power > largest_power(plain.scalar_type());
}

// With the powers of two in the entries multiplied separately.
Tensor scaled_products_of_others(const Tensor& x, int64_t dim) {
  const Tensor size = constant(x).abs();
  const double limit = largest_power(x.scalar_type());
  const auto [fraction, power] = at::frexp(size);
  const Tensor exponent = power.sub(fraction.lt(M_SQRT1_2).to(power.scalar_type()))
                              .masked_fill(size.isfinite().logical_not(), 0)
                              .to(size.scalar_type())
                              .clamp(-limit, limit);
  const Tensor products = products_of_others(x.mul(at::exp2(exponent.neg())), dim);
  // Beyond this range the product is zero or infinite.
  const Tensor rest =
      exponent.sum(dim, /*keepdim=*/true).sub(exponent).clamp(-2 * limit, 2 * limit);
  const Tensor half = rest.div(2).floor();
  return products.mul(at::exp2(half)).mul(at::exp2(rest.sub(half)));
}

Tensor slopes(const Tensor& x, int64_t dim) {
  const int64_t count = x.size(dim);
  if (count <= 1) {
    return at::ones_like(x);
  }
  const Tensor plain = plain_value(x);
  const bool is_tame =
      largest_power(x.scalar_type()) == 0 || (can_be_read(plain) && !may_overflow(plain, count));
  return is_tame ? products_of_others(x, dim) : scaled_products_of_others(x, dim);
}

// ---- forward mode ----

Tensor prod_tangent(const Tensor& x, const Tensor& t, int64_t dim, bool keepdim) {
  return t.mul(slopes(x, dim)).sum(dim, keepdim);
}

Dual prod(const Dual& self, std::optional<at::ScalarType> dtype) {
  return conform(prod_tangent(self.primal.flatten(), self.tangent.flatten(), 0, false),
                 ops::prod::call(self.primal, dtype));
}

Dual prod_dim(const Dual& self, int64_t dim, bool keepdim, std::optional<at::ScalarType> dtype) {
  Tensor primal = ops::prod_dim_int::call(self.primal, dim, keepdim, dtype);
  if (self.primal.dim() == 0) {
    return conform(self.tangent, std::move(primal));
  }
  const int64_t d = at::maybe_wrap_dim(dim, self.primal.dim());
  return conform(prod_tangent(self.primal, self.tangent, d, keepdim), std::move(primal));
}

// ---- reverse mode ----

struct RecordedProduct : torch::autograd::Function<RecordedProduct> {
  using List = torch::autograd::variable_list;
  using Context = torch::autograd::AutogradContext;

  // Along a dim, which is kept.
  static Tensor forward(Context* context, const Tensor& x, int64_t dim) {
    context->save_for_backward({x});
    context->saved_data["dim"] = dim;
    // The tape records this as a whole, but those in strata below record what it is made of.
    const c10::AutoGradMode for_strata_below(true);
    const at::AutoDispatchBelowADInplaceOrView below;
    return ops::prod_dim_int::call(x, dim, /*keepdim=*/true, std::nullopt);
  }

  static List backward(Context* context, const List& grads) {
    const Tensor x = context->get_saved_variables()[0];
    return {grads[0].mul(slopes(x, context->saved_data["dim"].toInt()).conj()), Tensor()};
  }
};

// PyTorch divides the product by each entry, unless some are zero. It multiplies them from both
// ends where it can't look at numbers, and this may overflow.
bool is_right(const Tensor& self, const Tensor& product, int64_t count) {
  const Tensor plain = plain_value(self), result = plain_value(product);
  if (!can_be_read(plain) || !can_be_read(result)) {
    return active_derivatives() < 2 || !has_numbers(plain);
  }
  const Sizes sizes = sizes_of(result);
  if (sizes.any_zero || sizes.any_infinite) {
    return false;
  }
  return plain.is_same(self) || !may_overflow(plain, count);
}

Tensor in_type(const Tensor& self, std::optional<at::ScalarType> dtype) {
  return dtype.has_value() ? self.to(*dtype) : self;
}

std::optional<Tensor> recorded_prod(const Tensor& result, const Tensor& self,
                                    std::optional<at::ScalarType> dtype) {
  if (is_right(self, result, self.numel())) {
    return std::nullopt;
  }
  return RecordedProduct::apply(in_type(self, dtype).flatten(), 0).squeeze(0);
}

std::optional<Tensor> recorded_prod_dim(const Tensor& result, const Tensor& self, int64_t dim,
                                        bool keepdim, std::optional<at::ScalarType> dtype) {
  if (self.dim() == 0 || is_right(self, result, self.size(dim))) {
    return std::nullopt;
  }
  const int64_t d = at::maybe_wrap_dim(dim, self.dim());
  const Tensor product = RecordedProduct::apply(in_type(self, dtype), d);
  return keepdim ? product : product.squeeze(d);
}

}  // namespace

FUNCTX_RULES(jvp_products_of_entries) {
  dual_rule<ops::prod, prod>();
  dual_rule<ops::prod_dim_int, prod_dim>();
}

FUNCTX_RULES(gradients_of_products_of_entries) {
  revised<ops::prod, recorded_prod>();
  revised<ops::prod_dim_int, recorded_prod_dim>();
}

}  // namespace functx
