// Operators that write, by the functional operators of the same name.
#pragma once

#include "core/boxed.h"

namespace functx {

// Whether `op` writes to its arguments what another operator would return.
bool has_functional_variant(const c10::OperatorHandle& op);

// Calls that operator and copies its results.
void batch_by_functional_variant(const c10::OperatorHandle& op, const LevelPtr& level,
                                 torch::jit::Stack* stack);

}  // namespace functx
