// Results whose length depends on the data: a batch if it is the same for all examples.
#pragma once

#include <string>

#include "batching/batched_tensor.h"
#include "core/tracked.h"

namespace functx {

// Whether a vmap of any level maps over `tensor`.
bool differs_between_examples(const Tensor& tensor);

inline constexpr const char* kUseFixedShape =
    "Call it outside vmap, or use what has a fixed shape, such as torch.where(mask, x, other), a "
    "masked reduction like (x * mask).sum(), sort, or nonzero_static.";

// The number in `counts`, of which there is one for each example: how many elements `call` gives.
// Raises if they differ, and says what to do.
int64_t common_count(const Tensor& counts, const std::string& call,
                     const char* remedy = kUseFixedShape);

}  // namespace functx
