// When autograd has to see an operator before its rule does, and what it has to see of views.
#pragma once

#include "core/operands.h"
#include "core/rule_scope.h"
#include "core/traits.h"

namespace functx {

// A view is recorded also of an untracked wrapper, because a tracked value may be written into it
// later; but only when something of its level is tracked, since it costs.
inline bool is_recorded(const OperatorTraits& traits, const Operands& operands,
                        const Level& level) {
  return !autograd_is_excluded() && (operands.taped() || (traits.is_view && level.may_record));
}

// Raises for a tensor, about to be written to by an operator that autograd records, that is a view
// of a wrapper by an operator that was not recorded.
void check_view_is_recorded(const Tensor& written);

// Of what an operator returned that was not recorded; some return the argument itself.
inline void note_unrecorded_view(const Tensor& view, const Wrapper* argument) {
  Wrapper* wrapper = as_wrapper(view);
  if (wrapper != nullptr && wrapper != argument) {
    wrapper->set_unrecorded_view();
  }
}

inline void note_unrecorded_view(at::TensorList views, const Wrapper* argument) {
  for (const Tensor& view : views) {
    note_unrecorded_view(view, argument);
  }
}

}  // namespace functx
