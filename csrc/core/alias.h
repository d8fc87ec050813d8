// Copies of wrappers.
#pragma once

#include "core/wrapper.h"

namespace functx {

inline Tensor alias_wrapper(const Tensor& wrapper) { return as_wrapper(wrapper)->alias(); }

// Whether `shallow_copy_and_detach` was called for `.data`, a constant in every stratum. That comes
// with a version counter of its own, as the outputs do that autograd has saved, but they may have
// their shape changed.
inline bool is_for_data(const c10::VariableVersion& version, bool allow_metadata_change) {
  return version.unique() && !allow_metadata_change;
}

}  // namespace functx
