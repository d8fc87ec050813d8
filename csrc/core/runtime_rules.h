// Rules that a user of the library gives while the program runs.
#pragma once

#include <functional>
#include <memory>

#include "core/boxed.h"

namespace functx {

// Takes the arguments off the stack and puts the results there, as every boxed rule does.
using RuntimeRule =
    std::function<void(const c10::OperatorHandle&, const LevelPtr&, torch::jit::Stack*)>;
using RuntimeRulePtr = std::shared_ptr<const RuntimeRule>;

// From now on `rule` is what `transform`, vmap or jvp, does with `op`, before any rule of ours and
// before rules added earlier. An operator that decomposes by itself still does so where a tape has
// to record it: there is no derivative of it as a whole.
void add_runtime_rule(Transform transform, const c10::OperatorHandle& op, RuntimeRulePtr rule);
void remove_runtime_rule(Transform transform, const c10::OperatorHandle& op,
                         const RuntimeRulePtr& rule);

}  // namespace functx
