// The path of operators without a typed rule.
#pragma once

#include <ATen/core/boxing/KernelFunction.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "core/level.h"
#include "core/traits.h"

namespace functx {

// What a transform does with an operator it has no rule for: takes the arguments off the stack and
// puts the results there.
using Fallback = void (*)(const c10::OperatorHandle& op, const LevelPtr& level,
                          torch::jit::Stack* stack);

// One fallback per wrapping transform, set by csrc/batching and csrc/forward_ad.
void set_fallback(Transform transform, Fallback fallback);

// Finds the top level on the stack, lets its tape record, then runs the transform's fallback.
void run_boxed(const OperatorTraits& traits, c10::DispatchKeySet keys, torch::jit::Stack* stack);

// Notes in the arguments on the stack that the operator writes to that they have changed.
void bump_versions(const c10::FunctionSchema& schema, const torch::jit::Stack& stack);

// `run_boxed` as a kernel of one operator, and of any.
c10::KernelFunction boxed_kernel_of(const c10::OperatorHandle& op);
void boxed_kernel(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                  torch::jit::Stack* stack);

}  // namespace functx
