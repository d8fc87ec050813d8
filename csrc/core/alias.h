// A second wrapper of the same value.
#pragma once

#include "core/wrapper.h"

namespace functx {

// Shares value, level and version counter with `wrapper` and has autograd metadata of its own.
// Unlike the operator detach, it keeps tangents.
Tensor alias_wrapper(const Tensor& wrapper);

}  // namespace functx
