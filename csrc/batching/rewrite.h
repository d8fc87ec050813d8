// Operators that become others before a tape has seen them, because PyTorch's derivative formula,
// or its kernel for composites, asks for something that examples may not share.
#pragma once

#include "batching/rule.h"

namespace functx {

namespace detail {

// `rewrite` takes the top level, whether it records, and the arguments; it returns the result, or
// nothing to go on as usual.
template <class Op, auto rewrite, class Signature = typename Op::schema>
struct Rewriting;

template <class Op, auto rewrite, class Result, class... Args>
struct Rewriting<Op, rewrite, Result(Args...)> {
  static Result run(c10::DispatchKeySet keys, Args... args) {
    const Operands operands(args...);
    Wrapper* top = operands.top();
    if (top != nullptr && !yields_to_torch_func(operands, keys) &&
        autocast_keys(traits_of<Op>().handle, keys).empty() &&
        !need_stand_ins<Args...>(operands, args...)) {
      const bool records = operands.taped() && !autograd_is_excluded();
      if constexpr (std::is_reference_v<Result>) {
        if (rewrite(top->level(), records, args...)) {
          return std::get<0>(std::forward_as_tuple(args...));
        }
      } else if (auto result = rewrite(top->level(), records, args...)) {
        return *std::move(result);
      }
    }
    return Kernel<Op>::run(keys, std::forward<Args>(args)...);
  }
};

}  // namespace detail

// Gives `Op`, which may have rules as well, this front kernel. For an in-place operator `rewrite`
// returns whether it has done the work.
template <class Op, auto rewrite>
void rewritten() {
  install_kernel<Op>(traits_of<Op>().is_composite ? Coverage::Decomposition : Coverage::Rule);
  register_kernel(c10::OperatorName(Op::name, Op::overload_name), kFrontKey,
                  c10::KernelFunction::makeFromUnboxedFunction(
                      TORCH_FN((detail::Rewriting<Op, rewrite>::run))));
}

}  // namespace functx
