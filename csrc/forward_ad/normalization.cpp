#include "forward_ad/normalization.h"

#include "forward_ad/conform.h"
#include "reverse_ad/differentiated.h"

namespace functx::normalization {

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

Tensor per_channel(const Tensor& values, int64_t rank) {
  std::vector<c10::SymInt> sizes(rank, 1);
  sizes[1] = values.sym_size(0);
  return values.reshape_symint(sizes);
}

Tensor curvature(const Tensor& grad, const Tensor& t, const Tensor& normalized,
                 const Tensor& change, const Tensor& result, const Tensor& rstd, const Dims& dims) {
  const auto mean = [&](const Tensor& a, const Tensor& b) { return a.mul(b).mean(dims, true); };
  return result.mul(mean(normalized, t))
      .add(change.mul(mean(grad, normalized)))
      .add(normalized.mul(mean(grad, change)))
      .mul(rstd)
      .neg();
}

// ---- layer norm ----

LayerNorm LayerNorm::of(const Tensor& input, int64_t kept, const Tensor& mean, const Tensor& rstd) {
  LayerNorm norm{kept, input, mean, rstd, {mean, rstd}};
  if (is_differentiated(input)) {
    norm.statistics = differentiable_statistics(input, rstd, norm.normalized_dims());
  }
  return norm;
}

Three LayerNorm::backward(const Tensor& grad, const Tensor& weight, const Tensor& bias,
                          Mask mask) const {
  return layer_norm_backward(*this, grad, weight, bias, mask);
}

// ---- batch norm ----

BatchNorm BatchNorm::of(const Tensor& input, const Tensor& running_mean, const Tensor& running_var,
                        const Tensor& mean, const Tensor& rstd, bool train, double eps) {
  BatchNorm norm{input, running_mean, running_var, mean, rstd, train, eps, {}};
  if (train) {
    const Tensor spread_rstd = per_channel(rstd, input.dim());
    norm.statistics = is_differentiated(input)
                          ? differentiable_statistics(input, spread_rstd, norm.normalized_dims())
                          : Statistics{per_channel(mean, input.dim()), spread_rstd};
  }
  return norm;
}

Three BatchNorm::backward(const Tensor& grad, const Tensor& weight, Mask mask) const {
  return batch_norm_backward(*this, grad, weight, mask);
}

Tensor BatchNorm::tangent_by_statistics(const Dual& given_mean, const Dual& given_var) const {
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

Dims BatchNorm::normalized_dims() const {
  Dims dims = range(2, input.dim());
  dims.push_back(0);
  return dims;
}

}  // namespace functx::normalization
