// The path of operators without a typed rule.
#pragma once

#include <ATen/core/boxing/BoxedKernel.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "core/level.h"

namespace functx {

// What a transform does with an operator it has no rule for: takes the arguments off the stack and
// puts the results there.
using Fallback = void (*)(const c10::OperatorHandle& op, const LevelPtr& level,
                          torch::jit::Stack* stack);

// One fallback per wrapping transform, set by csrc/batching and csrc/forward_ad.
void set_fallback(Transform transform, Fallback fallback);

// Finds the top level on the stack, lets its tape record, then runs the transform's fallback.
void boxed_kernel(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                  torch::jit::Stack* stack);

}  // namespace functx
