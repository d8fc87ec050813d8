// Results whose length depends on the data: a batch if it is the same for all examples.
#pragma once

#include <string>

#include "batching/batched_tensor.h"

namespace functx {

// The number in `counts`, of which there is one for each example: how many elements `call` gives.
// Raises if they differ.
int64_t common_count(const Tensor& counts, const std::string& call);

}  // namespace functx
