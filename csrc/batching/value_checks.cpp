#include "batching/value_checks.h"

#include <c10/core/impl/TorchDispatchModeTLS.h>

#include "batching/data_dependent.h"
#include "core/torch_func.h"

namespace functx {
namespace {

// What asserts ask of a tensor, PyTorch's search for NaNs in gradients among them: about all
// examples together, so that there is one answer to read.
template <class Op>
Batched of_all_examples(const Batched& self) {
  return {Op::call(self.value), false};
}

}  // namespace

bool holds_everywhere(const Tensor& condition) {
  const Tensor plain = innermost_value(condition);
  const bool is_readable = !plain.is_meta() && !plain.key_set().has(c10::DispatchKey::Python) &&
                           !c10::impl::dispatch_mode_enabled() && !torch_func_is_active();
  return !is_readable || plain.all().item<bool>();
}

FUNCTX_RULES(value_checks) {
  batching_rule<ops::_is_all_true, of_all_examples<ops::_is_all_true>>();
  batching_rule<ops::_is_any_true, of_all_examples<ops::_is_any_true>>();
}

}  // namespace functx
