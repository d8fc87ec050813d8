// Nested tensors: those of layout torch.strided have no shape, and so no examples and no tangents.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/level.h"

namespace functx {

// Raises for such a tensor. Those of layout torch.jagged are a Python class, and have a shape.
inline void check_has_shape(const at::Tensor& tensor, Transform transform) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !tensor.is_nested() || tensor.unsafeGetTensorImpl()->is_python_dispatch(), "functx.",
      name_of(transform), ": a nested tensor of layout torch.strided has no shape to work with. ",
      "Make it with layout=torch.jagged, or use a padded tensor and a mask.");
}

}  // namespace functx
