// Living beside torch.func: the two nest in either order, and neither knows the other's wrappers.
#pragma once

#include <c10/core/impl/LocalDispatchKeySet.h>

#include "core/level.h"

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

}  // namespace functx
