#include "batching/value_checks.h"

#include <c10/core/impl/TorchDispatchModeTLS.h>

#include "core/torch_func.h"
#include "forward_ad/dual_tensor.h"

namespace functx {
namespace {

Tensor innermost(Tensor tensor) {
  while (const Wrapper* wrapper = as_wrapper(tensor)) {
    tensor = wrapper->level()->transform == Transform::Vmap
                 ? static_cast<const BatchedTensor*>(wrapper)->value()
                 : static_cast<const DualTensor*>(wrapper)->dual().primal;
  }
  return tensor;
}

}  // namespace

bool holds_everywhere(const Tensor& condition) {
  const Tensor plain = innermost(condition);
  const bool is_readable = !plain.is_meta() && !plain.key_set().has(c10::DispatchKey::Python) &&
                           !c10::impl::dispatch_mode_enabled() && !torch_func_is_active();
  return !is_readable || plain.all().item<bool>();
}

}  // namespace functx
