// What in-place operators under vmap have to hold to.
#pragma once

#include "batching/batched_tensor.h"

namespace functx {

// Raises if operator `name` would write a batch of results (`is_batched`) into one tensor that all
// examples share.
void check_inplace(const char* name, const LevelPtr& level, const Tensor& self, bool is_batched);

}  // namespace functx
