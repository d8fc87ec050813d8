// Whether a derivative is taken of what is done with a tensor.
#pragma once

#include <c10/core/GradMode.h>

#include "core/wrapper.h"

namespace functx {

// By a tape that records, or by a tangent, in the stratum of `tensor` or in one below. What an
// operator saved for its backward and takes for a constant has to be computed anew then.
bool is_differentiated(const Tensor& tensor);

template <class... Tensors>
bool any_differentiated(const Tensors&... tensors) {
  return (is_differentiated(tensors) || ...);
}

}  // namespace functx
