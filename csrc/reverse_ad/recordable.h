// Operators of backward passes for which PyTorch has no derivative. Under grad, a tape that is
// about to record one records a composition of others in its place: so gradients have gradients.
#pragma once

#include <c10/core/GradMode.h>

#include <optional>
#include <utility>

#include "batching/rewrite.h"
#include "core/captured.h"

namespace functx {
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
    if (c10::GradMode::is_enabled() && !autograd_is_excluded() && !torch_func_is_active() &&
        (requires_grad(args) || ...)) {
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
void recordable() {
  using Recordable = detail::Recordable<Op, composition>;
  rewritten<Op, Recordable::on_wrappers>();
  register_kernel(
      c10::OperatorName(Op::name, Op::overload_name), kGradKey,
      c10::KernelFunction::makeFromUnboxedFunction(TORCH_FN(Recordable::on_plain_tensors)));
}

}  // namespace functx
