// What autograd tracks of a tensor, in its own stratum and in those below.
#pragma once

#include <vector>

#include "core/wrapper.h"

namespace functx {

// The tensors a wrapper stands for, one stratum down.
std::vector<Tensor> values_of(const Tensor& tensor);
// The tensor in all strata of wrappers: of duals the primal.
Tensor innermost_value(const Tensor& tensor);

bool is_tracked(const Tensor& tensor);
// Not counting its own stratum.
bool is_tracked_below(const Tensor& tensor);

// `tensor` without any connection to a tape, in all strata.
Tensor detach_all(const Tensor& tensor);

}  // namespace functx
