// Beside torch.autocast: it looks at an operator before our kernels do, as it does on any tensor.
//
// Autocast has a kernel for each operator whose arguments it casts. Our front key lies above its
// keys, so the front kernel passes the operator on; the kernel of autocast calls it again with the
// cast arguments and itself switched off. A tape then records what really runs.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/DispatchKeySet.h>

namespace functx {

// The keys at which autocast has to see `op`, called with `keys`; none unless it is on.
inline c10::DispatchKeySet autocast_keys(const c10::OperatorHandle& op, c10::DispatchKeySet keys) {
  c10::DispatchKeySet casting;
  for (const auto key : keys& c10::autocast_dispatch_keyset) {
    if (op.hasKernelForDispatchKey(key) && !op.isKernelFallthroughKernel(key)) {
      casting = casting.add(key);
    }
  }
  return casting;
}

inline bool autocast_is_on(c10::DispatchKeySet keys) {
  return keys.has_any(c10::autocast_dispatch_keyset);
}

}  // namespace functx
