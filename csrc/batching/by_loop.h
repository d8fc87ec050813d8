// The per-example loop as the way out of a typed rule that meets arguments it does not handle.
#pragma once

#include "batching/rule.h"

namespace functx {

namespace detail {

template <class Op, class Signature = typename Op::schema>
struct ByLoop;

template <class Op, class Result, class... Args>
struct ByLoop<Op, Result(Args...)> {
  static Result call(Args... args) {
    static const auto fallback = c10::BoxedKernel::makeFromFunction<&boxed_kernel>();
    return c10::impl::BoxedKernelWrapper<Result(Args...)>::call(fallback, traits_of<Op>().handle,
                                                                c10::DispatchKeySet(kBackKey),
                                                                std::forward<Args>(args)...);
  }
};

}  // namespace detail

// What the operator without a rule does: called by a rule, with the arguments it was given. The
// examples then also raise PyTorch's own errors about their shapes.
template <class Op, class... Args>
auto by_loop(Args&&... args) {
  return detail::ByLoop<Op>::call(std::forward<Args>(args)...);
}

// A rule that needs its level or the arguments as they came: the operator's own signature behind
// the level, as a kernel calls it.
template <class Op>
void level_rule(typename Rules<Op>::Rule rule) {
  Rules<Op>::batching = rule;
  install_kernel<Op>();
}

}  // namespace functx
