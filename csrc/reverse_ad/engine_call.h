// Calls of PyTorch's engine that its own API makes, inside a transform: torch.autograd.grad,
// Tensor.backward.
#pragma once

#include <vector>

#include "core/wrapper.h"

namespace functx {

// The gradients of `outputs` that the engine is to start from instead of `gradients`; undefined
// ones stay so. Raises if an output, or the way from it to one of `inputs`, is on a tape in a
// stratum below only.
std::vector<Tensor> engine_seeds(const std::vector<Tensor>& outputs,
                                 const std::vector<Tensor>& gradients,
                                 const std::vector<Tensor>& inputs);

}  // namespace functx
