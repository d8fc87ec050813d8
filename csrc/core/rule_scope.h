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
// too, stays.) Autocast has had its say about the operator; one that the rule of an operator calls
// in its place, which autocast may have other plans with, is not to be cast.
class RuleScope {
 public:
  explicit RuleScope(const Level& level, bool autocasts = true) : hidden_(level) {
    const auto state = c10::impl::tls_local_dispatch_key_set();
    auto excluded = state.excluded_;
    if (excluded.has(c10::DispatchKey::AutogradFunctionality) &&
        !c10::InferenceMode::is_enabled()) {
      excluded = excluded - c10::autograd_dispatch_keyset_with_ADInplaceOrView;
    }
    if (!autocasts) {
      excluded = excluded | c10::autocast_dispatch_keyset;
    }
    restores_ = excluded != state.excluded_;
    if (restores_) {
      saved_ = state;
      auto inner = state;
      inner.excluded_ = excluded;
      c10::impl::_force_tls_local_dispatch_key_set(inner);
    }
  }
  ~RuleScope() {
    if (restores_) {
      c10::impl::_force_tls_local_dispatch_key_set(saved_);
    }
  }
  RuleScope(const RuleScope&) = delete;
  RuleScope& operator=(const RuleScope&) = delete;

 private:
  HideFrom hidden_;
  c10::impl::LocalDispatchKeySet saved_{{}};
  bool restores_;
};

}  // namespace functx
