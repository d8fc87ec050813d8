// The thread-local state a rule runs in.
#pragma once

#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "core/level.h"

namespace functx {

inline bool autograd_is_excluded() {
  // The excluded set has no backend bits, so only the functionality can be asked for.
  return c10::impl::tls_local_dispatch_key_set().excluded_.has(
      c10::DispatchKey::AutogradFunctionality);
}

// A rule of `level` sees the levels outside of it only, and autograd records for them: we may be
// inside an autograd kernel of this level's own stratum. (Inference mode, which excludes autograd
// too, stays.)
class RuleScope {
 public:
  explicit RuleScope(const Level& level) : hidden_(level) {
    const auto state = c10::impl::tls_local_dispatch_key_set();
    restores_autograd_ = state.excluded_.has(c10::DispatchKey::AutogradFunctionality) &&
                         !c10::InferenceMode::is_enabled();
    if (restores_autograd_) {
      saved_ = state;
      auto inner = state;
      inner.excluded_ = inner.excluded_ - c10::autograd_dispatch_keyset_with_ADInplaceOrView;
      c10::impl::_force_tls_local_dispatch_key_set(inner);
    }
  }
  ~RuleScope() {
    if (restores_autograd_) {
      c10::impl::_force_tls_local_dispatch_key_set(saved_);
    }
  }
  RuleScope(const RuleScope&) = delete;
  RuleScope& operator=(const RuleScope&) = delete;

 private:
  HideFrom hidden_;
  c10::impl::LocalDispatchKeySet saved_{{}};
  bool restores_autograd_;
};

}  // namespace functx
