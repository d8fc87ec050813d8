// Operators that write, by the functional operators of the same name.
#pragma once

#include "core/boxed.h"
#include "core/functional_variant.h"

namespace functx {

// Calls the functional variant of `op` and copies its results.
void batch_by_functional_variant(const c10::OperatorHandle& op, const LevelPtr& level,
                                 torch::jit::Stack* stack);

}  // namespace functx
