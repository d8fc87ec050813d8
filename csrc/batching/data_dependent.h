// Results whose length depends on the data: a batch if it is the same for all examples.
#pragma once

#include <string>

#include "batching/batched_tensor.h"

namespace functx {

// The plain tensor at the bottom, which holds the examples of all levels.
Tensor innermost_value(Tensor tensor);

// Whether a vmap of any level maps over `tensor`.
bool differs_between_examples(const Tensor& tensor);

// The number in `counts`, of which there is one for each example: how many elements `call` gives.
// Raises if they differ.
int64_t common_count(const Tensor& counts, const std::string& call);

}  // namespace functx
