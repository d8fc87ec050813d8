// Softmax, and normalization by mean and variance. The Jacobian of normalization alone, before
// weight and bias, is symmetric, and so is that of softmax: the backward operator, which is one
// fused pass, serves forward mode as well.
#include "core/each_of.h"
#include "forward_ad/families.h"
#include "forward_ad/normalization.h"

namespace functx {
namespace {

using namespace normalization;

// ---- softmax ----

Tensor softmax_tangent(const Tensor& t, const Tensor& y, int64_t dim) {
  return ops::_softmax_backward_data::call(t.to(y.scalar_type()), y, dim, y.scalar_type());
}

Dual softmax(const Dual& self, int64_t dim, bool half_to_float) {
  Tensor primal = ops::_softmax::call(self.primal, dim, half_to_float);
  Tensor tangent = softmax_tangent(self.tangent, primal, dim);
  return {std::move(primal), std::move(tangent)};
}

Dual safe_softmax(const Dual& self, int64_t dim, std::optional<at::ScalarType> dtype) {
  Tensor primal = ops::_safe_softmax::call(self.primal, dim, dtype);
  Tensor tangent = softmax_tangent(self.tangent, primal, dim);
  return {std::move(primal), std::move(tangent)};
}

Dual log_softmax(const Dual& self, int64_t dim, bool half_to_float) {
  Tensor primal = ops::_log_softmax::call(self.primal, dim, half_to_float);
  const Tensor mean = primal.exp().mul(self.tangent).sum(dim, true);
  return conform(self.tangent.sub(mean), std::move(primal));
}

Dual softmax_backward(const Dual& grad, const Dual& output, int64_t dim, at::ScalarType dtype) {
  const Tensor &g = grad.primal, &y = output.primal;
  Tensor tangent;
  if (grad.has_tangent()) {
    tangent = ops::_softmax_backward_data::call(grad.tangent, y, dim, dtype);
  }
  if (output.has_tangent()) {
    const Tensor& t = output.tangent;
    const Tensor centered = g.sub(g.mul(y).sum(dim, true));
    const Tensor shift = y.mul(g.mul(t).sum(dim, true));
    tangent = sum_of(std::move(tangent), t.mul(centered).sub(shift));
  }
  return conform(std::move(tangent), ops::_softmax_backward_data::call(g, y, dim, dtype));
}

Dual log_softmax_backward(const Dual& grad, const Dual& output, int64_t dim, at::ScalarType dtype) {
  const Tensor &g = grad.primal, &y = output.primal;
  Tensor tangent;
  if (grad.has_tangent()) {
    tangent = ops::_log_softmax_backward_data::call(grad.tangent, y, dim, dtype);
  }
  if (output.has_tangent()) {
    const Tensor change = y.exp().mul(output.tangent).mul(g.sum(dim, true));
    tangent = tangent.defined() ? tangent.sub(change) : change.neg();
  }
  return conform(std::move(tangent), ops::_log_softmax_backward_data::call(g, y, dim, dtype));
}

// ---- what all normalizations share ----

// The affine map after it, with weight and bias in a shape that broadcasts.
Tensor affine_tangent(Tensor tangent, const Tensor& normalized, const Dual& weight,
                      const Dual& bias) {
  if (tangent.defined() && weight.defined()) {
    tangent = tangent.mul(weight.primal);
  }
  if (weight.has_tangent()) {
    tangent = sum_of(std::move(tangent), normalized.mul(weight.tangent));
  }
  return sum_of(std::move(tangent), bias.tangent);
}

Dual dual_per_channel(const Dual& values, int64_t rank) {
  const auto reshape = [&](const Tensor& t) { return t.defined() ? per_channel(t, rank) : t; };
  return {reshape(values.primal), reshape(values.tangent)};
}

using Gradients = std::tuple<Dual, Dual, Dual>;

// ---- layer norm ----

std::tuple<Dual, Tensor, Tensor> native_layer_norm(const Dual& input, c10::SymIntArrayRef shape,
                                                   const Dual& weight, const Dual& bias,
                                                   double eps) {
  auto [primal, mean, rstd] = ops::native_layer_norm::call(
      input.primal, shape, optional(weight.primal), optional(bias.primal), eps);
  const LayerNorm norm =
      LayerNorm::of(input.primal, static_cast<int64_t>(shape.size()), mean, rstd);
  Tensor tangent = input.has_tangent() ? norm.normalized_tangent(input.tangent) : Tensor();
  tangent = affine_tangent(std::move(tangent), weight.has_tangent() ? norm.normalized() : Tensor(),
                           weight, bias);
  return {conform(std::move(tangent), std::move(primal)), std::move(mean), std::move(rstd)};
}

// Mean and rstd are functions of the input here, whether or not they have tangents.
Gradients native_layer_norm_backward(const Dual& grad, const Dual& input, c10::SymIntArrayRef shape,
                                     const Dual& mean, const Dual& rstd, const Dual& weight,
                                     const Dual& bias, Mask mask) {
  const Tensor& g = grad.primal;
  const LayerNorm norm =
      LayerNorm::of(input.primal, static_cast<int64_t>(shape.size()), mean.primal, rstd.primal);
  // The bias is only asked for its shape.
  auto [by_input, by_weight, by_bias] = norm.backward(g, weight.primal, bias.primal, mask);
  Tensor input_tangent, weight_tangent, bias_tangent;
  if (grad.has_tangent()) {
    std::tie(input_tangent, weight_tangent, bias_tangent) =
        norm.backward(grad.tangent, weight.primal, bias.primal, mask);
  }
  if (weight.has_tangent() && mask[0]) {
    input_tangent = sum_of(std::move(input_tangent),
                           std::get<0>(norm.backward(g, weight.tangent, {}, only_input)));
  }
  if (input.has_tangent() && (mask[0] || mask[1])) {
    const Tensor change = norm.normalized_tangent(input.tangent);
    if (mask[0]) {
      const Tensor scaled = weight.defined() ? g.mul(weight.primal) : g;
      input_tangent = sum_of(std::move(input_tangent),
                             curvature(scaled, input.tangent, norm.normalized(), change, by_input,
                                       norm.scale(), norm.normalized_dims()));
    }
    if (mask[1]) {
      weight_tangent =
          sum_of(std::move(weight_tangent), sum_over(g.mul(change), norm.other_dims()));
    }
  }
  return {conform(std::move(input_tangent), std::move(by_input)),
          Dual{std::move(by_weight), std::move(weight_tangent)},
          Dual{std::move(by_bias), std::move(bias_tangent)}};
}

// ---- group norm ----

struct GroupNorm {
  c10::SymInt n, c, pixels;
  int64_t groups;
  Tensor input, mean, rstd;

  std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor& weight,
                                              Mask mask) const {
    return ops::native_group_norm_backward::call(grad.contiguous(), input, mean, rstd,
                                                 optional(weight), n, c, pixels, groups, mask);
  }
  // Every group in a row of its own.
  Tensor rows(const Tensor& t) const {
    return t.reshape_symint({n, c10::SymInt(groups), each_of(c, c10::SymInt(groups)) * pixels});
  }
  Tensor normalized() const {
    return rows(input).sub(mean.unsqueeze(-1)).mul(rstd.unsqueeze(-1)).view_as(input);
  }
  Tensor normalized_tangent(const Tensor& t) const {
    if (!detail::is_recorded_below(t, input)) {
      return std::get<0>(backward(t, Tensor(), only_input));
    }
    // That operator has no derivative of its own: rstd * (t - mean(t) - x * mean(x * t)).
    const Tensor x = rows(normalized());
    const Tensor change = rows(t);
    const Tensor along = x.mul(change).mean(-1, true);
    return change.sub(change.mean(-1, true))
        .sub(x.mul(along))
        .mul(rstd.unsqueeze(-1))
        .view_as(input);
  }
  Dims all_but_channels() const {
    Dims dims = range(2, input.dim());
    dims.push_back(0);
    return dims;
  }
};

// The backward that can be differentiated again uses the tangents of mean and rstd.
std::tuple<Dual, Dual, Dual> native_group_norm(const Dual& input, const Dual& weight,
                                               const Dual& bias, const c10::SymInt& n,
                                               const c10::SymInt& c, const c10::SymInt& pixels,
                                               int64_t groups, double eps) {
  auto [primal, mean, rstd] = ops::native_group_norm::call(
      input.primal, optional(weight.primal), optional(bias.primal), n, c, pixels, groups, eps);
  const GroupNorm norm{n, c, pixels, groups, input.primal, mean, rstd};
  const int64_t rank = input.primal.dim();
  Tensor tangent = input.has_tangent() ? norm.normalized_tangent(input.tangent) : Tensor();
  tangent = affine_tangent(std::move(tangent), weight.has_tangent() ? norm.normalized() : Tensor(),
                           dual_per_channel(weight, rank), dual_per_channel(bias, rank));
  Tensor mean_tangent, rstd_tangent;
  if (input.has_tangent()) {
    const Tensor rows = norm.rows(input.tangent);
    mean_tangent = rows.mean(-1);
    rstd_tangent = norm.rows(norm.normalized()).mul(rows).mean(-1).mul(rstd.square()).neg();
  }
  return {conform(std::move(tangent), std::move(primal)),
          conform(std::move(mean_tangent), std::move(mean)),
          conform(std::move(rstd_tangent), std::move(rstd))};
}

Gradients native_group_norm_backward(const Dual& grad, const Dual& input, const Dual& mean,
                                     const Dual& rstd, const Dual& weight, const c10::SymInt& n,
                                     const c10::SymInt& c, const c10::SymInt& pixels,
                                     int64_t groups, Mask mask) {
  const Tensor& g = grad.primal;
  const GroupNorm norm{n, c, pixels, groups, input.primal, mean.primal, rstd.primal};
  auto [by_input, by_weight, by_bias] = norm.backward(g, weight.primal, mask);
  Tensor input_tangent, weight_tangent, bias_tangent;
  if (grad.has_tangent()) {
    std::tie(input_tangent, weight_tangent, bias_tangent) =
        norm.backward(grad.tangent, weight.primal, mask);
  }
  if (weight.has_tangent() && mask[0]) {
    input_tangent =
        sum_of(std::move(input_tangent), std::get<0>(norm.backward(g, weight.tangent, only_input)));
  }
  if (input.has_tangent() && (mask[0] || mask[1])) {
    const Tensor change = norm.normalized_tangent(input.tangent);
    if (mask[0]) {
      const Tensor scaled = weight.defined() ? g.mul(per_channel(weight.primal, g.dim())) : g;
      const Tensor term =
          curvature(norm.rows(scaled), norm.rows(input.tangent), norm.rows(norm.normalized()),
                    norm.rows(change), norm.rows(by_input), norm.rstd.unsqueeze(-1), {2});
      input_tangent = sum_of(std::move(input_tangent), term.view_as(by_input));
    }
    if (mask[1]) {
      weight_tangent =
          sum_of(std::move(weight_tangent), g.mul(change).sum(norm.all_but_channels()));
    }
  }
  return {conform(std::move(input_tangent), std::move(by_input)),
          Dual{std::move(by_weight), std::move(weight_tangent)},
          Dual{std::move(by_bias), std::move(bias_tangent)}};
}

// ---- batch norm ----

std::tuple<Dual, Tensor, Tensor> native_batch_norm(const Dual& input, const Dual& weight,
                                                   const Dual& bias, const Dual& running_mean,
                                                   const Dual& running_var, bool training,
                                                   double momentum, double eps) {
  auto [primal, mean, rstd] = ops::native_batch_norm::call(
      input.primal, optional(weight.primal), optional(bias.primal), optional(running_mean.primal),
      optional(running_var.primal), training, momentum, eps);
  const BatchNorm norm = BatchNorm::of(input.primal, running_mean.primal, running_var.primal, mean,
                                       rstd, training, eps);
  const int64_t rank = input.primal.dim();
  Tensor tangent = input.has_tangent() ? norm.normalized_tangent(input.tangent) : Tensor();
  if (!training) {
    tangent = sum_of(std::move(tangent), norm.tangent_by_statistics(running_mean, running_var));
  }
  tangent = affine_tangent(std::move(tangent), weight.has_tangent() ? norm.normalized() : Tensor(),
                           dual_per_channel(weight, rank), dual_per_channel(bias, rank));
  return {conform(std::move(tangent), std::move(primal)), std::move(mean), std::move(rstd)};
}

// The same, but for the schema, which says that running statistics are written to.
std::tuple<Tensor, Tensor, Tensor> native_batch_norm_legit(
    const LevelPtr& level, const Tensor& input, const std::optional<Tensor>& weight,
    const std::optional<Tensor>& bias, Tensor& running_mean, Tensor& running_var, bool training,
    double momentum, double eps) {
  return Rules<ops::native_batch_norm>::dual(level, input, weight, bias, running_mean, running_var,
                                             training, momentum, eps);
}

// What is reserved is for a kernel that is not called here.
std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_with_update(
    const LevelPtr& level, const Tensor& input, const std::optional<Tensor>& weight,
    const std::optional<Tensor>& bias, Tensor& running_mean, Tensor& running_var, double momentum,
    double eps) {
  auto [output, mean, rstd] = Rules<ops::native_batch_norm>::dual(
      level, input, weight, bias, running_mean, running_var, true, momentum, eps);
  const Tensor primal = unwrap_dual(level, input).primal;
  const Tensor reserve = primal.new_empty({0}, primal.options().dtype(at::kByte));
  return {output, mean, rstd, make_dual(level, {reserve, {}})};
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_backward(
    const LevelPtr& level, const Tensor& grad, const Tensor& input, const Tensor& weight,
    const std::optional<Tensor>& running_mean, const std::optional<Tensor>& running_var,
    const std::optional<Tensor>& mean, const std::optional<Tensor>& rstd, bool train, double eps,
    std::array<bool, 3> mask, const Tensor&) {
  return Rules<ops::native_batch_norm_backward>::dual(level, grad, input, weight, running_mean,
                                                      running_var, mean, rstd, train, eps, mask);
}

Gradients native_batch_norm_backward(const Dual& grad, const Dual& input, const Dual& weight,
                                     const Dual& running_mean, const Dual& running_var,
                                     const Dual& mean, const Dual& rstd, bool train, double eps,
                                     Mask mask) {
  const Tensor& g = grad.primal;
  const BatchNorm norm = BatchNorm::of(input.primal, running_mean.primal, running_var.primal,
                                       mean.primal, rstd.primal, train, eps);
  auto [by_input, by_weight, by_bias] = norm.backward(g, weight.primal, mask);
  Tensor input_tangent, weight_tangent, bias_tangent;
  if (grad.has_tangent()) {
    std::tie(input_tangent, weight_tangent, bias_tangent) =
        norm.backward(grad.tangent, weight.primal, mask);
  }
  if (weight.has_tangent() && mask[0]) {
    input_tangent =
        sum_of(std::move(input_tangent), std::get<0>(norm.backward(g, weight.tangent, only_input)));
  }
  if (input.has_tangent() && ((mask[0] && train) || mask[1])) {
    const Tensor change = norm.normalized_tangent(input.tangent);
    if (mask[0] && train) {
      const Tensor scaled = weight.defined() ? g.mul(per_channel(weight.primal, g.dim())) : g;
      input_tangent = sum_of(std::move(input_tangent),
                             curvature(scaled, input.tangent, norm.normalized(), change, by_input,
                                       norm.scale(), norm.normalized_dims()));
    }
    if (mask[1]) {
      weight_tangent = sum_of(std::move(weight_tangent), g.mul(change).sum(norm.normalized_dims()));
    }
  }
  return {conform(std::move(input_tangent), std::move(by_input)),
          Dual{std::move(by_weight), std::move(weight_tangent)},
          Dual{std::move(by_bias), std::move(bias_tangent)}};
}

}  // namespace

FUNCTX_RULES(jvp_softmax) {
  dual_rule<ops::_softmax, softmax>();
  dual_rule<ops::_safe_softmax, safe_softmax>();
  dual_rule<ops::_log_softmax, log_softmax>();
  dual_rule<ops::_softmax_backward_data, softmax_backward>();
  dual_rule<ops::_log_softmax_backward_data, log_softmax_backward>();
}

FUNCTX_RULES(jvp_normalization) {
  dual_rule<ops::native_layer_norm, native_layer_norm>();
  dual_rule<ops::native_layer_norm_backward, native_layer_norm_backward>();
  dual_rule<ops::native_group_norm, native_group_norm>();
  dual_rule<ops::native_group_norm_backward, native_group_norm_backward>();
  dual_rule<ops::native_batch_norm, native_batch_norm>();
  Rules<ops::_native_batch_norm_legit>::dual = &native_batch_norm_legit;
  install_kernel<ops::_native_batch_norm_legit>();
  dual_rule<ops::native_batch_norm_backward, native_batch_norm_backward>();
  Rules<ops::_batch_norm_with_update>::dual = &batch_norm_with_update;
  install_kernel<ops::_batch_norm_with_update>();
  Rules<ops::batch_norm_backward>::dual = &batch_norm_backward;
  install_kernel<ops::batch_norm_backward>();
}

}  // namespace functx
