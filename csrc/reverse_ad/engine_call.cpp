#include "reverse_ad/engine_call.h"

#include <algorithm>

#include "core/lift.h"
#include "core/tracked.h"
#include "reverse_ad/graph.h"
#include "reverse_ad/seed.h"

namespace functx {
namespace {

[[noreturn]] void refuse_tape_below(const Level& level) {
  TORCH_CHECK(false, "functx.", name_of(level.transform), ": PyTorch's autograd was asked inside ",
              name_of(level.transform),
              " for the gradient of a tensor that is tracked outside of it, and is the same for "
              "every example or has no tangent. Use functx.grad with that tensor as an argument of "
              "the function, or track a tensor that was computed from the inputs.");
}

// Whether the tape of a stratum below that of `output` leads to `input`.
bool depends_below(const Tensor& output, const Tensor& input) {
  const Wrapper* wrapper = as_wrapper(output);
  if (wrapper == nullptr) {
    return false;
  }
  const NodePtr target = node_of(input);
  const auto values = wrapper->values();
  return std::any_of(values.begin(), values.end(), [&](const Tensor& value) {
    return (value.requires_grad() && reaches({node_of(value)}, number_of(*target),
                                             [&](Node* node) { return node == target.get(); })) ||
           depends_below(value, input);
  });
}

void check_tapes(const std::vector<Tensor>& outputs, const std::vector<Tensor>& inputs) {
  for (const Tensor& output : outputs) {
    const LevelPtr level = level_of(output);
    if (level == nullptr) {
      continue;
    }
    if (!output.requires_grad() && is_tracked_below(output)) {
      refuse_tape_below(*level);
    }
    for (const Tensor& input : inputs) {
      if (input.requires_grad() && level_of(input) != level && depends_below(output, input)) {
        refuse_tape_below(*level);
      }
    }
  }
}

}  // namespace

std::vector<Tensor> engine_seeds(const std::vector<Tensor>& outputs,
                                 const std::vector<Tensor>& gradients,
                                 const std::vector<Tensor>& inputs) {
  check_tapes(outputs, inputs);
  const LevelPtr stratum = innermost_of(inputs, innermost_of(gradients, innermost_of(outputs)));
  std::vector<Tensor> seeds = gradients;
  for (size_t i = 0; i < seeds.size(); ++i) {
    if (seeds[i].defined() && outputs[i].requires_grad()) {
      seeds[i] = seed(outputs[i], seeds[i], stratum,
                      stratum != nullptr && writes_into_views({node_of(outputs[i])}, 0));
    }
  }
  return seeds;
}

}  // namespace functx
