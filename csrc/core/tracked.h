// What autograd tracks of a tensor, in its own stratum and in those below.
#pragma once

#include "core/wrapper.h"

namespace functx {

// The plain tensor at the bottom, which holds the examples of all levels; of duals the primal.
Tensor innermost_value(Tensor tensor);

bool is_tracked(const Tensor& tensor);
// Not counting its own stratum.
bool is_tracked_below(const Tensor& tensor);

// `tensor` without any connection to a tape, in all strata.
Tensor detach_all(const Tensor& tensor);

}  // namespace functx
