// Layer, group and RMS normalisation, and weight normalisation. With shared weight and bias the
// batch joins the rows that are normalised; what differs per example is applied afterwards.
#include "batching/dims.h"
#include "batching/fold.h"
#include "batching/rule.h"
#include "core/statistics.h"
#include "reverse_ad/differentiated.h"

namespace functx {
namespace {

using Triple = std::tuple<Batched, Batched, Batched>;

bool any(const Batched& a, const Batched& b) { return a.is_batched || b.is_batched; }

// x * y and x + y as the logical shapes broadcast.
Batched multiply(const Batched& x, const Batched& y) {
  const int64_t rank = std::max(x.logical_dim(), y.logical_dim());
  return {ops::mul_Tensor::call(align_rank(x, rank), align_rank(y, rank)), any(x, y)};
}

Batched add(const Batched& x, const Batched& y) {
  const int64_t rank = std::max(x.logical_dim(), y.logical_dim());
  return {ops::add_Tensor::call(align_rank(x, rank), align_rank(y, rank), 1), any(x, y)};
}

Batched subtract(const Batched& x, const Batched& y) {
  const int64_t rank = std::max(x.logical_dim(), y.logical_dim());
  return {ops::sub_Tensor::call(align_rank(x, rank), align_rank(y, rank), 1), any(x, y)};
}

// A weight in float beside values in half precision does not change their type.
Batched cast_like(Batched x, const Batched& like) {
  return {x.value.to(like.value.scalar_type()), x.is_batched};
}

Batched scale_and_shift(Batched x, const Batched& weight, const Batched& bias) {
  const at::ScalarType dtype = x.value.scalar_type();
  if (weight.defined() && bias.defined()) {
    const int64_t rank = x.logical_dim();
    const Tensor result = ops::addcmul::call(align_rank(bias, rank), align_rank(x, rank),
                                             align_rank(weight, rank), 1);
    return {result.to(dtype), detail::any_batched(x, weight, bias)};
  }
  if (weight.defined()) {
    x = multiply(x, weight);
  }
  if (bias.defined()) {
    x = add(x, bias);
  }
  return {x.value.to(dtype), x.is_batched};
}

// Sums `x` over its logical dimensions in front of the last `kept`.
Batched sum_leading(const Batched& x, int64_t kept) {
  at::DimVector dims = all_physical_dims(x);
  dims.resize(std::max<int64_t>(0, x.logical_dim() - kept));
  return dims.empty() ? x : Batched{x.value.sum(dims), x.is_batched};
}

Tensor dense(const Batched& x, int64_t batch_size) {
  return ensure_batched(x, batch_size).contiguous();
}

Triple layer_norm(const Batched& input, c10::SymIntArrayRef shape, const Batched& weight,
                  const Batched& bias, double eps) {
  TORCH_CHECK(input.logical_dim() >= static_cast<int64_t>(shape.size()),
              "layer_norm: given normalized_shape=", shape, ", expected an input with at least ",
              shape.size(), " dimensions, but got ", input.logical_dim());
  const bool is_shared = !any(weight, bias);
  auto [output, mean, rstd] = ops::native_layer_norm::call(
      input.value, shape, is_shared ? optional_value(weight) : std::nullopt,
      is_shared ? optional_value(bias) : std::nullopt, eps);
  Batched result{output, input.is_batched};
  return {is_shared ? result : scale_and_shift(result, weight, bias),
          {mean, input.is_batched},
          {rstd, input.is_batched}};
}

// The input as the operator normalized it over its last `kept` dimensions.
Batched normalize(const Batched& input, const Batched& mean, const Batched& rstd, int64_t kept) {
  if (!is_differentiated(input.value) || input.is_batched != rstd.is_batched) {
    return multiply(subtract(input, mean), rstd);
  }
  at::DimVector dims;
  for (int64_t dim = -kept; dim < 0; ++dim) {
    dims.push_back(dim);
  }
  const auto statistics = differentiable_statistics(input.value, rstd.value, dims);
  return {input.value.sub(statistics.mean).mul(statistics.rstd), input.is_batched};
}

Triple layer_norm_backward(const Batched& grad, const Batched& input, c10::SymIntArrayRef shape,
                           const Batched& mean, const Batched& rstd, const Batched& weight,
                           const Batched& bias, const std::array<bool, 3>& mask) {
  if (!detail::any_batched(grad, input, mean, rstd, weight, bias)) {
    auto [grad_input, grad_weight, grad_bias] = ops::native_layer_norm_backward::call(
        grad.value, input.value, shape, mean.value, rstd.value, optional_value(weight),
        optional_value(bias), mask);
    return {{grad_input, false}, {grad_weight, false}, {grad_bias, false}};
  }
  const auto kept = static_cast<int64_t>(shape.size());
  Triple result;
  if (mask[0]) {
    const Batched scaled = weight.is_batched ? cast_like(multiply(grad, weight), grad) : grad;
    const std::optional<Tensor> shared = weight.is_batched ? std::nullopt : optional_value(weight);
    if (!detail::any_batched(scaled, input, mean, rstd)) {
      std::get<0>(result) = {std::get<0>(ops::native_layer_norm_backward::call(
                                 scaled.value, input.value, shape, mean.value, rstd.value, shared,
                                 std::nullopt, {true, false, false})),
                             false};
    } else {
      const int64_t size = *common_batch_size({&scaled, &input, &mean, &rstd});
      std::get<0>(result) = {std::get<0>(ops::native_layer_norm_backward::call(
                                 dense(scaled, size), dense(input, size), shape, dense(mean, size),
                                 dense(rstd, size), shared, std::nullopt, {true, false, false})),
                             true};
    }
  }
  if (mask[1]) {
    const Batched normalized = normalize(input, mean, rstd, kept);
    std::get<1>(result) =
        cast_like(sum_leading(multiply(normalized, grad), kept), weight.defined() ? weight : grad);
  }
  if (mask[2]) {
    std::get<2>(result) = cast_like(sum_leading(grad, kept), bias.defined() ? bias : grad);
  }
  return result;
}

// A weight of C channels as it broadcasts with [N, C, ..].
Batched beside_channels(const Batched& weight, int64_t rank) {
  if (!weight.defined()) {
    return weight;
  }
  Tensor shaped = weight.value;
  for (int64_t dim = 2; dim < rank; ++dim) {
    shaped = shaped.unsqueeze(-1);
  }
  return {shaped, weight.is_batched};
}

Triple group_norm(const Batched& input, const Batched& weight, const Batched& bias,
                  const c10::SymInt& n, const c10::SymInt& c, const c10::SymInt& space,
                  int64_t group, double eps) {
  const bool is_shared = !any(weight, bias);
  const auto shared_weight = is_shared ? optional_value(weight) : std::nullopt;
  const auto shared_bias = is_shared ? optional_value(bias) : std::nullopt;
  const Tensor folded = input.is_batched ? input.value.flatten(0, 1).contiguous() : input.value;
  const c10::SymInt rows = input.is_batched ? n * batch_size(input) : n;
  auto [output, mean, rstd] =
      ops::native_group_norm::call(folded, shared_weight, shared_bias, rows, c, space, group, eps);
  const auto unfold = [&](const Tensor& value) {
    return input.is_batched ? Batched{unfold_items(value, batch_size(input)), true}
                            : Batched{value, false};
  };
  const Batched result = unfold(output);
  const int64_t rank = input.logical_dim();
  return {is_shared
              ? result
              : scale_and_shift(result, beside_channels(weight, rank), beside_channels(bias, rank)),
          unfold(mean), unfold(rstd)};
}

// [.., N, ...] as [.., N, group, C / group, space] of one example, summed over space.
Batched sum_space(const Batched& x, const c10::SymInt& n, const c10::SymInt& c,
                  const c10::SymInt& space, int64_t group) {
  const std::array<c10::SymInt, 4> shape{n, c10::SymInt(group), each_of(c, c10::SymInt(group)),
                                         space};
  return {x.value.reshape_symint(physical_size(x, shape)).sum(-1), x.is_batched};
}

Batched flatten_channels(const Batched& x) { return {x.value.flatten(-2), x.is_batched}; }

Triple group_norm_backward(const Batched& grad, const Batched& input, const Batched& mean,
                           const Batched& rstd, const Batched& weight, const c10::SymInt& n,
                           const c10::SymInt& c, const c10::SymInt& space, int64_t group,
                           const std::array<bool, 3>& mask) {
  if (!detail::any_batched(grad, input, mean, rstd, weight)) {
    auto [grad_input, grad_weight, grad_bias] =
        ops::native_group_norm_backward::call(grad.value, input.value, mean.value, rstd.value,
                                              optional_value(weight), n, c, space, group, mask);
    return {{grad_input, false}, {grad_weight, false}, {grad_bias, false}};
  }
  Triple result;
  if (mask[0]) {
    const Batched scaled =
        weight.is_batched
            ? cast_like(multiply(grad, beside_channels(weight, grad.logical_dim())), grad)
            : grad;
    const auto shared = weight.is_batched ? std::nullopt : optional_value(weight);
    const auto size = common_batch_size({&scaled, &input, &mean, &rstd});
    const auto fold = [&](const Batched& x) {
      return size ? fold_items(x, *size).contiguous() : x.value;
    };
    const Tensor folded = std::get<0>(ops::native_group_norm_backward::call(
        fold(scaled), fold(input), fold(mean), fold(rstd), shared, size ? n * *size : n, c, space,
        group, {true, false, false}));
    std::get<0>(result) = {size ? unfold_items(folded, *size) : folded, size.has_value()};
  }
  const Batched grad_sum = sum_space(grad, n, c, space, group);
  if (mask[1]) {
    // sum of grad * (input - mean) * rstd, where mean and rstd are the same for all of a group
    const Batched product_sum = sum_space(multiply(grad, input), n, c, space, group);
    const Batched means{mean.value.unsqueeze(-1), mean.is_batched};
    const Batched scales{rstd.value.unsqueeze(-1), rstd.is_batched};
    const Batched each = multiply(subtract(product_sum, multiply(grad_sum, means)), scales);
    std::get<1>(result) =
        cast_like(sum_leading(flatten_channels(each), 1), weight.defined() ? weight : grad);
  }
  if (mask[2]) {
    std::get<2>(result) =
        cast_like(sum_leading(flatten_channels(grad_sum), 1), weight.defined() ? weight : grad);
  }
  return result;
}

std::tuple<Batched, Batched> rms_norm_backward(const Batched& grad, const Batched& input,
                                               at::IntArrayRef shape, const Batched& rstd,
                                               const Batched& weight,
                                               const std::array<bool, 2>& mask) {
  if (!detail::any_batched(grad, input, rstd, weight)) {
    auto [grad_input, grad_weight] = ops::_fused_rms_norm_backward::call(
        grad.value, input.value, shape, rstd.value, optional_value(weight), mask);
    return {{grad_input, false}, {grad_weight, false}};
  }
  const auto kept = static_cast<int64_t>(shape.size());
  const Batched normalized = multiply(input, rstd);
  std::tuple<Batched, Batched> result;
  if (mask[0]) {
    const Batched scaled = weight.defined() ? multiply(grad, weight) : grad;
    const Batched product = multiply(scaled, normalized);
    at::DimVector last;
    for (int64_t dim = -kept; dim < 0; ++dim) {
      last.push_back(dim);
    }
    const Batched mean{product.value.mean(last, true), product.is_batched};
    std::get<0>(result) =
        cast_like(multiply(subtract(scaled, multiply(normalized, mean)), rstd), input);
  }
  if (mask[1]) {
    std::get<1>(result) =
        cast_like(sum_leading(multiply(grad, normalized), kept), weight.defined() ? weight : input);
  }
  return result;
}

// All logical dimensions but `dim`.
at::DimVector other_dims(const Batched& x, int64_t dim) {
  at::DimVector dims = all_physical_dims(x);
  const int64_t kept = physical_dim(x, dim);
  dims.erase(std::remove(dims.begin(), dims.end(), kept), dims.end());
  return dims;
}

Batched norms_of(const Batched& v, int64_t dim) {
  const at::DimVector dims = other_dims(v, dim);
  // A norm over no dimensions would be one over all.
  return {dims.empty() ? v.value.abs()
                       : ops::linalg_vector_norm::call(v.value, 2, dims, true, std::nullopt),
          v.is_batched};
}

std::tuple<Batched, Batched> weight_norm(const Batched& v, const Batched& g, int64_t dim) {
  if (!any(v, g)) {
    auto [weight, norms] = ops::_weight_norm_interface::call(v.value, g.value, dim);
    return {{weight, false}, {norms, false}};
  }
  const Batched norms = norms_of(v, dim);
  const Batched scale{ops::div_Tensor::call(align_rank(g, v.logical_dim()), norms.value),
                      any(v, g)};
  return {multiply(v, scale), norms};
}

std::tuple<Batched, Batched> weight_norm_backward(const Batched& grad, const Batched& v,
                                                  const Batched& g, const Batched& norms,
                                                  int64_t dim) {
  if (!detail::any_batched(grad, v, g, norms)) {
    auto [grad_v, grad_g] =
        ops::_weight_norm_interface_backward::call(grad.value, v.value, g.value, norms.value, dim);
    return {{grad_v, false}, {grad_g, false}};
  }
  // Those that were saved are constants.
  const Batched lengths = is_differentiated(v.value) ? norms_of(v, dim) : norms;
  const Batched inverse{lengths.value.reciprocal(), lengths.is_batched};
  const Batched unit = multiply(v, inverse);
  const Batched product = multiply(grad, unit);
  const at::DimVector dims = other_dims(product, dim);
  const Batched along{dims.empty() ? product.value : product.value.sum(dims, true),
                      product.is_batched};
  return {multiply(multiply(g, inverse), subtract(grad, multiply(unit, along))), along};
}

// Every slice along `dim` by itself: the batch joins that dimension.
Batched renorm(const Batched& self, const at::Scalar& p, int64_t dim, const at::Scalar& maxnorm) {
  if (!self.is_batched) {
    return {self.value.renorm(p, dim, maxnorm), false};
  }
  TORCH_CHECK(self.logical_dim() > 1, "renorm: input needs at least 2 dimensions, but got ",
              self.logical_dim());
  const Tensor slices = self.value.movedim(physical_dim(self, dim), 1);
  const Tensor folded = slices.flatten(0, 1).renorm(p, 0, maxnorm);
  return {folded.unflatten(0, {slices.size(0), slices.size(1)}).movedim(1, physical_dim(self, dim)),
          true};
}

void renorm_(const Batched& self, const at::Scalar& p, int64_t dim, const at::Scalar& maxnorm) {
  self.value.copy_(renorm(self, p, dim, maxnorm).value);
}

}  // namespace

FUNCTX_RULES(normalization) {
  batching_rule<ops::native_layer_norm, layer_norm>();
  batching_rule<ops::native_layer_norm_backward, layer_norm_backward>();
  batching_rule<ops::native_group_norm, group_norm>();
  batching_rule<ops::native_group_norm_backward, group_norm_backward>();
  batching_rule<ops::_fused_rms_norm_backward, rms_norm_backward>();
  batching_rule<ops::_weight_norm_interface, weight_norm>();
  batching_rule<ops::_weight_norm_interface_backward, weight_norm_backward>();
  batching_rule<ops::renorm, renorm>();
  batching_rule<ops::renorm_, renorm_>();
}

}  // namespace functx
