// A second wrapper of the same value.
#pragma once

#include "core/wrapper.h"

namespace functx {

// Shares value, level and version counter with `wrapper` and has autograd metadata of its own.
// Unlike the operator detach, it keeps tangents.
Tensor alias_wrapper(const Tensor& wrapper);

// Whether `shallow_copy_and_detach` was called for `.data`, a constant in every stratum. That comes
// with a version counter of its own, as the outputs do that autograd has saved, but they may have
// their shape changed.
inline bool is_for_data(const c10::VariableVersion& version, bool allow_metadata_change) {
  return version.unique() && !allow_metadata_change;
}

}  // namespace functx
