// Living beside PyTorch's own transforms: theirs and ours nest in either order, and neither knows
// the other's wrappers.
#pragma once

#include <c10/core/impl/LocalDispatchKeySet.h>

#include "core/operands.h"

namespace functx {

// Grows with every transform of torch.func that is entered on this thread; 0 outside of all.
int64_t torch_func_depth();

// The same for torch._vmap_internals, the vmap before torch.func, which torch.autograd keeps for
// is_grads_batched=True and vectorize=True.
int64_t legacy_vmap_depth();

inline bool torch_func_is_active() {
  // A key that is included while any transform of torch.func is active.
  return c10::impl::tls_local_dispatch_key_set().included_.has(
      c10::DispatchKey::FuncTorchDynamicLayerBackMode);
}

// Whether PyTorch's transforms have to see an operator before `level` does: one was entered inside
// `level` and has not dealt with the operator yet, or an argument is a wrapper that torch.func has
// left behind and unwraps. Our front key comes first all the same, so the kernel there has to pass
// the operator on; it is brought back when they get to their own values.
inline bool yields_to_torch(const Level& level, c10::DispatchKeySet keys) {
  if (keys.has(c10::DispatchKey::Batched) && legacy_vmap_depth() > level.legacy_vmap_depth) {
    return true;
  }
  return torch_func_is_active() ? torch_func_depth() > level.torch_func_depth
                                : keys.has(c10::DispatchKey::FuncTorchGradWrapper);
}

// The same for the top level of `operands`, of which there is one. An argument that hides a wrapper
// of ours was made inside of its level.
inline bool yields_to_torch(const Operands& operands, c10::DispatchKeySet keys) {
  return operands.any_foreign() || yields_to_torch(*operands.top()->level(), keys);
}

// Whether the next to see an operator without a wrapper among its arguments is a kernel of
// PyTorch's, and not a transform or a tensor subclass, which calls other operators on wrappers.
inline bool goes_to_kernel(c10::DispatchKeySet keys) {
  return !torch_func_is_active() && !keys.has_any(kForeignWrapperKeys);
}

}  // namespace functx
