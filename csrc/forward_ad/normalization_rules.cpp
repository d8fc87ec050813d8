// Softmax, and normalization by mean and variance. The Jacobian of normalization alone, before
// weight and bias, is symmetric, and so is that of softmax: the backward operator, which is one
// fused pass, serves forward mode as well.
#include "core/each_of.h"
#include "core/statistics.h"
#include "forward_ad/families.h"
#include "reverse_ad/recordable.h"

namespace functx {
namespace {

using Dims = std::vector<int64_t>;
using Mask = std::array<bool, 3>;
constexpr Mask only_input{true, false, false};

std::optional<Tensor> optional(const Tensor& tensor) {
  return tensor.defined() ? std::make_optional(tensor) : std::nullopt;
}

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

// The tangent of the backward with respect to its input, by the tangent of that input:
// `grad` is that of the normalized value, `result` the backward's result, statistics over `dims`.
Tensor curvature(const Tensor& grad, const Tensor& input_tangent, const Tensor& normalized,
                 const Tensor& normalized_tangent, const Tensor& result, const Tensor& rstd,
                 const Dims& dims) {
  const auto mean = [&](const Tensor& a, const Tensor& b) { return a.mul(b).mean(dims, true); };
  return result.mul(mean(normalized, input_tangent))
      .add(normalized_tangent.mul(mean(grad, normalized)))
      .add(normalized.mul(mean(grad, normalized_tangent)))
      .mul(rstd)
      .neg();
}

Dims range(int64_t first, int64_t last) {
  Dims dims;
  for (int64_t d = first; d < last; ++d) {
    dims.push_back(d);
  }
  return dims;
}

Tensor sum_over(const Tensor& terms, const Dims& dims) {
  return dims.empty() ? terms : terms.sum(dims);
}

// Along dim 1 of a tensor of this rank.
Tensor per_channel(const Tensor& values, int64_t rank) {
  std::vector<c10::SymInt> sizes(rank, 1);
  sizes[1] = values.sym_size(0);
  return values.reshape_symint(sizes);
}

Dual per_channel(const Dual& values, int64_t rank) {
  const auto reshape = [&](const Tensor& t) { return t.defined() ? per_channel(t, rank) : t; };
  return {reshape(values.primal), reshape(values.tangent)};
}

using Gradients = std::tuple<Dual, Dual, Dual>;

// ---- layer norm ----

struct LayerNorm {
  c10::SymIntArrayRef shape;
  // As the operator saved them, which is what its backward takes.
  Tensor input, mean, rstd;
  // The same, for formulas of our own.
  Statistics statistics;

  std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor& weight,
                                              Mask mask) const {
    return ops::native_layer_norm_backward::call(grad, input, shape, mean, rstd, optional(weight),
                                                 std::nullopt, mask);
  }
  Tensor normalized() const { return input.sub(statistics.mean).mul(statistics.rstd); }
  Tensor normalized_tangent(const Tensor& t) const {
    return std::get<0>(backward(t, Tensor(), only_input));
  }
};

LayerNorm layer_norm_of(c10::SymIntArrayRef shape, const Tensor& input, const Tensor& mean,
                        const Tensor& rstd) {
  if (!detail::is_recorded_below(input)) {
    return {shape, input, mean, rstd, {mean, rstd}};
  }
  const int64_t rank = input.dim();
  const Dims dims = range(rank - static_cast<int64_t>(shape.size()), rank);
  return {shape, input, mean, rstd, differentiable_statistics(input, rstd, dims)};
}

std::tuple<Dual, Tensor, Tensor> native_layer_norm(const Dual& input, c10::SymIntArrayRef shape,
                                                   const Dual& weight, const Dual& bias,
                                                   double eps) {
  auto [primal, mean, rstd] = ops::native_layer_norm::call(
      input.primal, shape, optional(weight.primal), optional(bias.primal), eps);
  const LayerNorm norm = layer_norm_of(shape, input.primal, mean, rstd);
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
  const LayerNorm norm = layer_norm_of(shape, input.primal, mean.primal, rstd.primal);
  const int64_t rank = input.primal.dim();
  const int64_t outer = rank - static_cast<int64_t>(shape.size());
  // The bias is only asked for its shape.
  auto [by_input, by_weight, by_bias] =
      ops::native_layer_norm_backward::call(g, norm.input, shape, norm.mean, norm.rstd,
                                            optional(weight.primal), optional(bias.primal), mask);
  Tensor input_tangent, weight_tangent, bias_tangent;
  if (grad.has_tangent()) {
    std::tie(input_tangent, weight_tangent, bias_tangent) =
        ops::native_layer_norm_backward::call(grad.tangent, norm.input, shape, norm.mean, norm.rstd,
                                              optional(weight.primal), optional(bias.primal), mask);
  }
  if (weight.has_tangent() && mask[0]) {
    input_tangent =
        sum_of(std::move(input_tangent), std::get<0>(norm.backward(g, weight.tangent, only_input)));
  }
  if (input.has_tangent() && (mask[0] || mask[1])) {
    const Tensor change = norm.normalized_tangent(input.tangent);
    if (mask[0]) {
      const Tensor scaled = weight.defined() ? g.mul(weight.primal) : g;
      input_tangent = sum_of(std::move(input_tangent),
                             curvature(scaled, input.tangent, norm.normalized(), change, by_input,
                                       norm.statistics.rstd, range(outer, rank)));
    }
    if (mask[1]) {
      weight_tangent = sum_of(std::move(weight_tangent), sum_over(g.mul(change), range(0, outer)));
    }
  }
  return {conform(std::move(input_tangent), std::move(by_input)),
          Dual{std::move(by_weight), std::move(weight_tangent)},
          Dual{std::move(by_bias), std::move(bias_tangent)}};
}

// PyTorch's derivative of it takes a weight for granted where there is a bias.
std::optional<std::tuple<Tensor, Tensor, Tensor>> layer_norm_gradient(
    const Tensor& grad, const Tensor& input, c10::SymIntArrayRef shape, const Tensor&,
    const Tensor& rstd, const std::optional<Tensor>& weight, const std::optional<Tensor>& bias,
    Mask mask) {
  if ((weight.has_value() && weight->defined()) || !bias.has_value() || !bias->defined()) {
    return std::nullopt;
  }
  const int64_t outer = input.dim() - static_cast<int64_t>(shape.size());
  const Dims dims = range(outer, input.dim());
  const Statistics statistics = differentiable_statistics(input, rstd, dims);
  const Tensor normalized = input.sub(statistics.mean).mul(statistics.rstd);
  const auto mean = [&](const Tensor& x) { return x.mean(dims, /*keepdim=*/true); };
  const Tensor centred = grad.sub(mean(grad)).sub(normalized.mul(mean(grad.mul(normalized))));
  return std::make_tuple(
      mask[0] ? centred.mul(statistics.rstd) : Tensor(), Tensor(),
      mask[2] ? (outer > 0 ? grad.sum(range(0, outer)) : grad).alias() : Tensor());
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
                           per_channel(weight, rank), per_channel(bias, rank));
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

// Outside of training the statistics are given.
struct BatchNorm {
  Tensor input, running_mean, running_var, mean, rstd;
  bool train;
  double eps;
  // Of the batch, in a shape that broadcasts; for formulas of our own.
  Statistics statistics;

  std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor& weight,
                                              Mask mask) const {
    return ops::native_batch_norm_backward::call(grad, input, optional(weight),
                                                 optional(running_mean), optional(running_var),
                                                 optional(mean), optional(rstd), train, eps, mask);
  }
  Tensor scale() const {
    return train ? statistics.rstd : per_channel(running_var.add(eps).rsqrt(), input.dim());
  }
  Tensor normalized() const {
    return input.sub(train ? statistics.mean : per_channel(running_mean, input.dim())).mul(scale());
  }
  Tensor normalized_tangent(const Tensor& t) const {
    return train ? std::get<0>(backward(t, Tensor(), only_input)) : t.mul(scale());
  }
  // By those that are given.
  Tensor tangent_by_statistics(const Dual& given_mean, const Dual& given_var) const {
    Tensor tangent;
    if (given_mean.has_tangent()) {
      tangent = per_channel(given_mean.tangent, input.dim()).mul(scale()).neg();
    }
    if (given_var.has_tangent()) {
      const Tensor change = per_channel(given_var.tangent, input.dim()).div(-2);
      tangent = sum_of(std::move(tangent), normalized().mul(scale().square()).mul(change));
    }
    return tangent;
  }
  Dims all_but_channels() const {
    Dims dims = range(2, input.dim());
    dims.push_back(0);
    return dims;
  }
};

BatchNorm batch_norm_of(const Tensor& input, const Tensor& running_mean, const Tensor& running_var,
                        const Tensor& mean, const Tensor& rstd, bool train, double eps) {
  BatchNorm norm{input, running_mean, running_var, mean, rstd, train, eps, {}};
  if (train && detail::is_recorded_below(input)) {
    norm.statistics =
        differentiable_statistics(input, per_channel(rstd, input.dim()), norm.all_but_channels());
  } else if (train) {
    norm.statistics = {per_channel(mean, input.dim()), per_channel(rstd, input.dim())};
  }
  return norm;
}

std::tuple<Dual, Tensor, Tensor> native_batch_norm(const Dual& input, const Dual& weight,
                                                   const Dual& bias, const Dual& running_mean,
                                                   const Dual& running_var, bool training,
                                                   double momentum, double eps) {
  auto [primal, mean, rstd] = ops::native_batch_norm::call(
      input.primal, optional(weight.primal), optional(bias.primal), optional(running_mean.primal),
      optional(running_var.primal), training, momentum, eps);
  const BatchNorm norm = batch_norm_of(input.primal, running_mean.primal, running_var.primal, mean,
                                       rstd, training, eps);
  const int64_t rank = input.primal.dim();
  Tensor tangent = input.has_tangent() ? norm.normalized_tangent(input.tangent) : Tensor();
  if (!training) {
    tangent = sum_of(std::move(tangent), norm.tangent_by_statistics(running_mean, running_var));
  }
  tangent = affine_tangent(std::move(tangent), weight.has_tangent() ? norm.normalized() : Tensor(),
                           per_channel(weight, rank), per_channel(bias, rank));
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
  const BatchNorm norm = batch_norm_of(input.primal, running_mean.primal, running_var.primal,
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
                                       norm.scale(), norm.all_but_channels()));
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

}  // namespace

FUNCTX_RULES(gradients_of_normalizations) {
  recordable<ops::native_layer_norm_backward, layer_norm_gradient>();
}

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
