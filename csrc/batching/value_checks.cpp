#include "batching/value_checks.h"

#include <c10/core/impl/TorchDispatchModeTLS.h>

#include "batching/data_dependent.h"
#include "core/torch_func.h"

namespace functx {
bool holds_everywhere(const Tensor& condition) {
  const Tensor plain = innermost_value(condition);
  const bool is_readable = !plain.is_meta() && !plain.key_set().has(c10::DispatchKey::Python) &&
                           !c10::impl::dispatch_mode_enabled() && !torch_func_is_active();
  return !is_readable || plain.all().item<bool>();
}

}  // namespace functx
