// Batches of no examples. A rule is written for examples that there are, and many kernels of
// PyTorch want one to look at. So at such a level a typed kernel does not run its rule itself but
// leaves that to a function of csrc/batching.
#pragma once

#include "core/boxed.h"

namespace functx {

// Sets that function, which takes the arguments off the stack and puts the results there.
void set_empty_batch(Fallback run);

// Calls it, as a kernel of any operator.
void empty_batch_kernel(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                        torch::jit::Stack* stack);

// Runs the typed rule of `op` at the top level of the arguments, for the function to try.
void run_typed_rule(const c10::OperatorHandle& op, torch::jit::Stack* stack);

// Whether it is `run_typed_rule` that the kernel of `op` has been called by; true once.
bool takes_rule(const c10::OperatorHandle& op);

inline bool has_no_examples(const Level& level) {
  return level.batch_size == 0 && level.transform == Transform::Vmap;
}

}  // namespace functx
