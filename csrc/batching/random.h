// Random operators under vmap: who draws, once or for each example, by `randomness=`.
#pragma once

#include "core/boxed.h"

namespace functx {

// Whether this call depends on the state of a generator; dropout in evaluation mode does not.
bool draws(const c10::OperatorHandle& op, const torch::jit::Stack& stack);

// Raises if `level` does not allow random operators.
void check_may_draw(const c10::OperatorHandle& op, const Level& level);

// The batching rule of random operators. Levels outside `level` see the operator in their turn.
void draw_for_batch(const c10::OperatorHandle& op, const LevelPtr& level, torch::jit::Stack* stack);

}  // namespace functx
