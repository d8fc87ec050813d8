#include "batching/inplace.h"

#include <string_view>

namespace functx {

void check_inplace(const char* name, const LevelPtr& level, const Tensor& self, bool is_batched) {
  const bool self_is_batched = unwrap_batched(level, self).is_batched;
  TORCH_CHECK(
      !is_batched || self_is_batched, "functx.vmap: ", name,
      "(self, *extra_args) is not possible: it writes into a tensor that is the same for every "
      "example (self), but an argument differs between examples, so the result would have to be a "
      "batch of tensors. Use the out-of-place operator instead, or make self from a batched tensor "
      "x, for example by x.new_zeros(...)",
      std::string_view(name) == "aten::copy_" ? ", before it is filled by self[i] = y." : ".");
}

}  // namespace functx
