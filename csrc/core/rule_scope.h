// The thread-local state a rule runs in.
#pragma once

#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "core/keys.h"

namespace functx {

inline bool autograd_is_excluded() {
  // The excluded set has no backend bits, so only the functionality can be asked for.
  return c10::impl::tls_local_dispatch_key_set().excluded_.has(
      c10::DispatchKey::AutogradFunctionality);
}

// Turns autograd on again for the values below (we may be inside an autograd kernel of this
// stratum; inference mode, which excludes it too, stays), and the mode key off (what a rule
// allocates or draws belongs to no level).
class RuleScope {
 public:
  RuleScope() {
    const auto state = c10::impl::tls_local_dispatch_key_set();
    auto excluded = state.excluded_;
    if (excluded.has(c10::DispatchKey::AutogradFunctionality) && !c10::InferenceMode::is_enabled()) {
      excluded = excluded - c10::autograd_dispatch_keyset_with_ADInplaceOrView;
    }
    changed_ = state.included_.has(kModeKey) || excluded != state.excluded_;
    if (changed_) {
      saved_ = raw(state.included_, state.excluded_);
      c10::impl::_force_tls_local_dispatch_key_set(
          c10::impl::LocalDispatchKeySet(raw(state.included_.remove(kModeKey), excluded)));
    }
  }
  ~RuleScope() {
    if (changed_) {
      c10::impl::_force_tls_local_dispatch_key_set(c10::impl::LocalDispatchKeySet(saved_));
    }
  }
  RuleScope(const RuleScope&) = delete;
  RuleScope& operator=(const RuleScope&) = delete;

 private:
  static c10::impl::PODLocalDispatchKeySet raw(c10::DispatchKeySet included,
                                               c10::DispatchKeySet excluded) {
    c10::impl::PODLocalDispatchKeySet state{};
    state.set_included(included);
    state.set_excluded(excluded);
    return state;
  }

  c10::impl::PODLocalDispatchKeySet saved_{};
  bool changed_;
};

}  // namespace functx
