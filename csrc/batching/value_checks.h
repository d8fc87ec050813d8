// Checks that a composition of PyTorch's makes by reading a value, made for all examples at once.
#pragma once

#include "batching/rule.h"

namespace functx {

// Whether all elements of `condition` are true, in every example of every level. Where there are no
// values to read, as in a trace or a fake tensor, they pass for true.
bool holds_everywhere(const Tensor& condition);

}  // namespace functx
