// Tensors that have no shape, or no strides: they have no examples and no tangents.
#pragma once

#include <ATen/SparseCsrTensorUtils.h>
#include <ATen/core/Tensor.h>

#include "core/level.h"

namespace functx {

// Raises for a nested tensor of layout torch.strided. Those of layout torch.jagged are a Python
// class, and have a shape.
inline void check_has_shape(const at::Tensor& tensor, Transform transform) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !tensor.is_nested() || tensor.unsafeGetTensorImpl()->is_python_dispatch(), "functx.",
      name_of(transform), ": a nested tensor of layout torch.strided has no shape to work with. ",
      "Make it with layout=torch.jagged, or use a padded tensor and a mask.");
}

// Raises for a tensor of a compressed sparse layout.
inline void check_has_strides(const at::Tensor& tensor, Transform transform) {
  TORCH_CHECK_NOT_IMPLEMENTED(!at::sparse_csr::is_sparse_compressed(tensor), "functx.",
                              name_of(transform), ": a tensor of layout ", tensor.layout(),
                              " can be a constant only. Use the layout torch.sparse_coo, or call "
                              "to_dense().");
}

}  // namespace functx
