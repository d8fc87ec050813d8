// Operators of which PyTorch has no derivative, most of them of backward passes, or none that can
// be differentiated again. Under grad, a tape that is about to record one records a composition of
// others in its place: so gradients have gradients.
#pragma once

#include <c10/core/GradMode.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "batching/rewrite.h"
#include "core/captured.h"

namespace functx {

// Whether a tape sees a call on plain tensors; `requires_grad` tells if one of them is on it.
inline bool is_recorded_on_plain_tensors(bool requires_grad) {
  return requires_grad && c10::GradMode::is_enabled() && !autograd_is_excluded() &&
         !torch_func_is_active();
}

namespace detail {

template <class Op, auto composition, class Signature = typename Op::schema>
struct Recordable;

template <class Op, auto composition, class Result, class... Args>
struct Recordable<Op, composition, Result(Args...)> {
  static std::optional<Result> on_wrappers(const LevelPtr&, bool records, Args... args) {
    if (!records) {
      return std::nullopt;
    }
    return composition(args...);
  }

  static Result on_plain_tensors(c10::DispatchKeySet keys, Args... args) {
    if (is_recorded_on_plain_tensors((requires_grad(args) || ...))) {
      if (std::optional<Result> result = composition(args...)) {
        return *std::move(result);
      }
    }
    return Op::redispatch(keys & kBelowGradKey, std::forward<Args>(args)...);
  }
};

}  // namespace detail

// `composition` takes and returns what `Op` does, or an optional of it: nothing where PyTorch's
// operator can be recorded as it is.
template <class Op, auto composition>
void recordable_on_plain_tensors() {
  register_kernel(c10::OperatorName(Op::name, Op::overload_name), kGradKey,
                  c10::KernelFunction::makeFromUnboxedFunction(
                      TORCH_FN((detail::Recordable<Op, composition>::on_plain_tensors))));
}

template <class Op, auto composition>
void recordable() {
  rewritten<Op, detail::Recordable<Op, composition>::on_wrappers>();
  recordable_on_plain_tensors<Op, composition>();
}

}  // namespace functx
