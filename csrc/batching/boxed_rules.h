// Batching rules for operators known by name only, on boxed arguments. Slower by a microsecond than
// a typed rule and next to free to compile: for long tails of similar operators.
#pragma once

#include <functional>

#include "core/boxed.h"

namespace functx {

using BoxedBatchingRule = Fallback;

// The operators of `names` ("aten::foo.overload") are batched by `rule`.
void boxed_batching_rule(std::initializer_list<const char*> names, BoxedBatchingRule rule);

// The boxed rule of `op`, or null.
BoxedBatchingRule find_boxed_batching_rule(const c10::OperatorHandle& op);

// Runs the rule that PyTorch's `torch.library.register_vmap` was given for `op`; false if there is
// none. PyTorch's own operators are not asked for.
using LibraryRules = bool (*)(const c10::OperatorHandle& op, const LevelPtr& level,
                              torch::jit::Stack* stack);
void set_library_rules(LibraryRules rules);

// Lines up the examples of all tensor arguments and calls the operator once.
void batch_pointwise(const c10::OperatorHandle& op, const LevelPtr& level,
                     torch::jit::Stack* stack);

// The same values in wrappers without autograd metadata: for a rule that calls operators on the
// wrappers, when the tape of this level, if there is one, has recorded the operator as a whole.
c10::IValue without_tape(const LevelPtr& level, const c10::IValue& argument);

// Calls the operator once per example and stacks the results; warns once per operator.
void loop_over_examples(const c10::OperatorHandle& op, const LevelPtr& level,
                        torch::jit::Stack* stack);

// The loop without the warning, for operators that have no other way.
void loop_silently(const c10::OperatorHandle& op, const LevelPtr& level, torch::jit::Stack* stack);

// The silent loop, with a call of `before_example` before that of each example.
void loop_with(const std::function<void()>& before_example, const c10::OperatorHandle& op,
               const LevelPtr& level, torch::jit::Stack* stack);

// Where the loop's warning goes; TORCH_WARN by default.
void set_warning_sink(void (*sink)(const std::string& message));

// Turns the loop's warning on or off; returns the old setting.
bool warn_on_loop(bool enabled);

}  // namespace functx
