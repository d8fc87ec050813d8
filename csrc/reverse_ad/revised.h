// Operators whose derivative PyTorch has right for most values only. Under grad, a tape records
// PyTorch's operator, and what that returned tells whether this is one of the other values; if so a
// composition of operators takes its place that has derivatives there too.
#pragma once

#include <optional>
#include <utility>

#include "reverse_ad/recordable.h"

namespace functx {

namespace detail {

template <class Op, auto revision, class Signature = typename Op::schema>
struct Revised;

template <class Op, auto revision, class Result, class... Args>
struct Revised<Op, revision, Result(Args...)> {
  static Result on_wrappers(c10::DispatchKeySet keys, Args... args) {
    const Operands operands(args...);
    const bool records =
        operands.taped() && !autograd_is_excluded() && !yields_to_torch_func(operands, keys);
    return revised(records, Kernel<Op>::run(keys, args...), args...);
  }

  static Result on_plain_tensors(c10::DispatchKeySet keys, Args... args) {
    return revised(is_recorded_on_plain_tensors((requires_grad(args) || ...)),
                   Op::redispatch(keys & kBelowGradKey, args...), args...);
  }

 private:
  static Result revised(bool records, Result result, const Args&... args) {
    if (records) {
      if (std::optional<Result> other = revision(result, args...)) {
        return *std::move(other);
      }
    }
    return result;
  }
};

}  // namespace detail

// `revision` takes the result of `Op` and its arguments, and returns another result or nothing.
template <class Op, auto revision>
void revised() {
  install_kernel<Op>();
  const c10::OperatorName name(Op::name, Op::overload_name);
  using Revised = detail::Revised<Op, revision>;
  register_kernel(name, kFrontKey,
                  c10::KernelFunction::makeFromUnboxedFunction(TORCH_FN(Revised::on_wrappers)));
  register_kernel(
      name, kGradKey,
      c10::KernelFunction::makeFromUnboxedFunction(TORCH_FN(Revised::on_plain_tensors)));
}

}  // namespace functx
