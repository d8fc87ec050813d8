// Reverse mode: PyTorch's own autograd, run on the tensors of the innermost stratum.
#pragma once

#include <vector>

#include "core/wrapper.h"

namespace functx {

// Aliases of `inputs`, lifted to the innermost wrapper level and tracked by a tape of their own. An
// input that was tracked before (with grad mode on outside the level) stays connected.
std::vector<Tensor> track(const Level& level, const std::vector<Tensor>& inputs);

// Whether `tensor` or a value below it is on a tape.
bool is_tracked(const Tensor& tensor);

// Whether something tracked outside of `inputs` can see `output`: then the backward pass has to be
// recorded, and the output may not be detached.
bool depends_on_outside(const Tensor& output, const std::vector<Tensor>& inputs);

// `output` without any connection to a tape, in all strata.
Tensor detach_all(const Tensor& output);

struct Pullback {
  std::vector<Tensor> outputs;
  std::vector<Tensor> inputs;
  // An undefined cotangent is ones, of a scalar output.
  std::vector<Tensor> cotangents;
  bool retain_graph = false;
  bool create_graph = false;
};

// Vector-Jacobian product by one engine call; zeros for inputs that are not reached.
std::vector<Tensor> run(const Pullback& pullback);

}  // namespace functx
