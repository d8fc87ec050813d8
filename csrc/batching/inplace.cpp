#include "batching/inplace.h"

namespace functx {

void check_inplace(const char* name, const LevelPtr& level, const Tensor& self, bool is_batched) {
  const bool self_is_batched = unwrap_batched(level, self).is_batched;
  TORCH_CHECK(
      !is_batched || self_is_batched, "functx.vmap: ", name,
      "(self, *extra_args) is not possible: it writes into a tensor that is the same for every "
      "example (self), but an argument differs between examples, so the result would have to be a "
      "batch of tensors. Use the "
      "out-of-place operator instead, or create self from a batched tensor (for example "
      "with x.new_zeros(...)) or clone it under vmap.");
}

}  // namespace functx
