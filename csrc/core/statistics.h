// Mean and deviation of a normalization, for derivatives that go through them.
#pragma once

#include <ATen/core/Tensor.h>

namespace functx {

struct Statistics {
  at::Tensor mean;
  at::Tensor rstd;
};

// PyTorch's normalizations save mean and rstd = 1 / sqrt(var + eps) as constants. These have the
// same values and depend on the input. `rstd` is the saved one; `dims` are kept with size one.
inline Statistics differentiable_statistics(const at::Tensor& input, const at::Tensor& rstd,
                                            at::IntArrayRef dims) {
  at::Tensor mean = input.mean(dims, true);
  const at::Tensor variance = input.sub(mean).square().mean(dims, true);
  const at::Tensor saved = rstd.detach().reshape_symint(variance.sym_sizes());
  const at::Tensor eps = saved.pow(-2).sub(variance.detach());
  return {std::move(mean), variance.add(eps).rsqrt()};
}

}  // namespace functx
