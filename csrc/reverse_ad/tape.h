// Reverse mode: PyTorch's own autograd, run on the tensors of the innermost stratum.
#pragma once

#include <vector>

#include "core/wrapper.h"
#include "reverse_ad/outside.h"

namespace functx {

// Aliases of `inputs`, lifted to the innermost wrapper level and tracked by a tape of their own,
// that of the grad level that was entered last. An input that was tracked before stays connected.
std::vector<Tensor> track(const std::vector<Tensor>& inputs);

// What `level` hands out of itself: `output` detached from its tape, unless something tracked
// outside can see it.
Tensor release(const Level& level, const Tensor& output, Outside& outside);

// Vector-Jacobian product by one engine call; zeros for inputs that are not reached. `outputs` are
// those of the traced function itself, not the released ones. An undefined cotangent is ones, of a
// scalar output. May be called when the level has been left: whether the backward pass is recorded
// is decided anew at each call.
std::vector<Tensor> pullback(const Level& level, const std::vector<Tensor>& outputs,
                             const std::vector<Tensor>& inputs,
                             const std::vector<Tensor>& cotangents, bool retain_graph);

// Takes the arguments that the function of `level` wrote tracked values to off its tape, unless
// something outside can see them. No pullback may follow.
void let_go(Level& level);

}  // namespace functx
