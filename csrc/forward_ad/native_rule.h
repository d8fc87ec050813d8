// PyTorch's own forward-mode formula, for a rule that calls it and adds what it leaves out.
#pragma once

#include "core/boxed.h"
#include "forward_ad/rule.h"

namespace functx {

template <class Op, class Signature = typename Op::schema>
struct Native;

// The native fallback for `Op`, of duals.
template <class Op, class Result, class... Args>
struct Native<Op, Result(Args...)> {
  static Result call(Args... args) {
    static const auto fallback = c10::BoxedKernel::makeFromFunction<&boxed_kernel>();
    return c10::impl::BoxedKernelWrapper<Result(Args...)>::call(fallback, traits_of<Op>().handle,
                                                                c10::DispatchKeySet(kBackKey),
                                                                std::forward<Args>(args)...);
  }
};

}  // namespace functx
