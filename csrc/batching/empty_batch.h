// Batches of no examples.
#pragma once

#include "batching/boxed_rules.h"

namespace functx {

// Tries `rule`, which most rules stand. Where one raises, or what it calls, the operator is batched
// over one example that is made up, and the results lose it again. So the operator raises only if
// it would for a batch of one, and what it returns has the shape that it has there.
void batch_without_examples(const BoxedBatchingRule& rule, const c10::OperatorHandle& op,
                            const LevelPtr& level, torch::jit::Stack* stack);

// Before a call of a kernel that ends the process, or raises what is not PyTorch's, where there are
// no examples.
inline void check_any_examples(int64_t batch_size) {
  TORCH_CHECK(batch_size > 0, "functx.vmap: there is no example");
}

// The same without a try.
void batch_one_made_up(const c10::OperatorHandle& op, const LevelPtr& level,
                       torch::jit::Stack* stack);

}  // namespace functx
