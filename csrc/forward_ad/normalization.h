// Layer and batch normalization: what their derivatives in both modes are made of.
//
// Both are y = (x - mean) * rstd over some dims of x, then an affine map. The Jacobian of y is
// symmetric, J t = rstd * (t - mean(t) - y * mean(y * t)), so that the backward operator, which is
// one fused pass, serves forward mode as well.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <tuple>
#include <vector>

#include "core/statistics.h"
#include "forward_ad/dual_tensor.h"

namespace functx::normalization {

using Dims = std::vector<int64_t>;
using Mask = std::array<bool, 3>;
using Three = std::tuple<Tensor, Tensor, Tensor>;

inline constexpr Mask only_input{true, false, false};

inline std::optional<Tensor> optional(const Tensor& tensor) {
  return tensor.defined() ? std::make_optional(tensor) : std::nullopt;
}

// From `first` to before `last`.
Dims range(int64_t first, int64_t last);
Tensor sum_over(const Tensor& terms, const Dims& dims);
// Along dim 1 of a tensor of this rank.
Tensor per_channel(const Tensor& values, int64_t rank);

// How J grad changes with the input in the direction `t`. `change` is J t, `result` is J grad, and
// statistics are over `dims`. It is symmetric in `grad` and `t` and the direction that it is itself
// multiplied by, so that it is its own transpose.
Tensor curvature(const Tensor& grad, const Tensor& t, const Tensor& normalized,
                 const Tensor& change, const Tensor& result, const Tensor& rstd, const Dims& dims);

struct LayerNorm {
  // How many dims are normalized, the last ones.
  int64_t kept;
  // As the operator saved them, which is what its backward takes.
  Tensor input, mean, rstd;
  // The same, for formulas of our own.
  Statistics statistics;

  static LayerNorm of(const Tensor& input, int64_t kept, const Tensor& mean, const Tensor& rstd);

  // The fused operator, recorded so that it can be differentiated any number of times.
  Three backward(const Tensor& grad, const Tensor& weight, const Tensor& bias, Mask mask) const;

  Tensor normalized() const { return input.sub(statistics.mean).mul(statistics.rstd); }
  Tensor normalized_tangent(const Tensor& t) const {
    return std::get<0>(backward(t, {}, {}, only_input));
  }
  const Tensor& scale() const { return statistics.rstd; }
  // Weight and bias in a shape that broadcasts.
  static const Tensor& spread(const Tensor& affine) { return affine; }
  Dims normalized_dims() const { return range(input.dim() - kept, input.dim()); }
  Dims other_dims() const { return range(0, input.dim() - kept); }
  c10::SymIntArrayRef shape() const { return input.sym_sizes().slice(input.dim() - kept); }
};

// Outside of training the statistics are given.
struct BatchNorm {
  Tensor input, running_mean, running_var, mean, rstd;
  bool train;
  double eps;
  // Of the batch, in a shape that broadcasts; for formulas of our own.
  Statistics statistics;

  static BatchNorm of(const Tensor& input, const Tensor& running_mean, const Tensor& running_var,
                      const Tensor& mean, const Tensor& rstd, bool train, double eps);

  Three backward(const Tensor& grad, const Tensor& weight, Mask mask) const;

  Tensor normalized() const {
    return input.sub(train ? statistics.mean : per_channel(running_mean, input.dim())).mul(scale());
  }
  Tensor normalized_tangent(const Tensor& t) const {
    return train ? std::get<0>(backward(t, {}, only_input)) : t.mul(scale());
  }
  Tensor scale() const {
    return train ? statistics.rstd : per_channel(running_var.add(eps).rsqrt(), input.dim());
  }
  Tensor spread(const Tensor& affine) const {
    return affine.defined() ? per_channel(affine, input.dim()) : affine;
  }
  // By running statistics, which are given.
  Tensor tangent_by_statistics(const Dual& given_mean, const Dual& given_var) const;
  // All but the channels.
  Dims normalized_dims() const;
  Dims other_dims() const { return normalized_dims(); }
};

// native_layer_norm_backward and native_batch_norm_backward (of training). PyTorch's derivatives of
// them take mean and rstd for constants, which the derivatives of these don't survive; a tape that
// records one of these, in whatever surroundings, gets a node of our own.
Three layer_norm_backward(const LayerNorm& norm, const Tensor& grad, const Tensor& weight,
                          const Tensor& bias, Mask mask);
Three batch_norm_backward(const BatchNorm& norm, const Tensor& grad, const Tensor& weight,
                          Mask mask);

}  // namespace functx::normalization
