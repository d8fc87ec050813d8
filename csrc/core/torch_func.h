// Living beside torch.func: the two nest in either order, and neither knows the other's wrappers.
#pragma once

#include <c10/core/impl/LocalDispatchKeySet.h>

#include "core/operands.h"

namespace functx {

// Grows with every transform of torch.func that is entered on this thread; 0 outside of all.
int64_t torch_func_depth();

inline bool torch_func_is_active() {
  // A key that is included while any transform of torch.func is active.
  return c10::impl::tls_local_dispatch_key_set().included_.has(
      c10::DispatchKey::FuncTorchDynamicLayerBackMode);
}

// Whether torch.func has to see an operator before `level` does: a transform of torch.func was
// entered inside `level` and has not dealt with the operator yet, or an argument is a wrapper that
// one has left behind, which torch.func unwraps. Our front key comes first all the same, so the
// kernel there has to pass the operator on; torch.func brings it back when it gets to its own
// values.
inline bool yields_to_torch_func(const Level& level, c10::DispatchKeySet keys) {
  return torch_func_is_active() ? torch_func_depth() > level.torch_func_depth
                                : keys.has(c10::DispatchKey::FuncTorchGradWrapper);
}

// The same for the top level of `operands`, of which there has to be one. Functionalization outside
// of torch.func has no depth to compare: an argument in which it hides a wrapper of ours was made
// inside of that wrapper's level.
inline bool yields_to_torch_func(const Operands& operands, c10::DispatchKeySet keys) {
  return yields_to_torch_func(*operands.top()->level(), keys) ||
         (operands.any_foreign() && !torch_func_is_active());
}

// Whether the next to see an operator without a wrapper among its arguments is a kernel of
// PyTorch's, and not a transform or a tensor subclass, which may call others on wrappers.
inline bool goes_to_kernel(c10::DispatchKeySet keys) {
  return !torch_func_is_active() && !keys.has_any(kForeignWrapperKeys);
}

}  // namespace functx
