// Views of another size.
#pragma once

#include <ATen/InferSize.h>
#include <ATen/TensorUtils.h>
#include <ATen/core/Tensor.h>

namespace functx {

// Whether `x` can be viewed in `size`, of which one may be -1, as it lies in memory.
inline bool has_view(const at::Tensor& x, c10::SymIntArrayRef size) {
  return at::detail::computeStride(x.sym_sizes(), x.sym_strides(),
                                   at::infer_size_dv(size, x.sym_numel()))
      .has_value();
}

}  // namespace functx
