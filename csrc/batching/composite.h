// Composite operators that PyTorch decomposes in a way that cannot be batched.
//
// Some write into what they computed from one of their arguments. If that argument is the same for
// every example and another is not, the write has no place to go; so the argument is spread over
// the examples before the operator decomposes. Others look at values; they get a decomposition of
// ours, on the wrappers of any transform.
#pragma once

#include "batching/rule.h"

namespace functx {

namespace detail {

// A copy for every example, made by an operator that a tape can record.
inline Tensor spread_over_examples(const LevelPtr& level, const Tensor& tensor) {
  const Batched x = unwrap_batched(level, tensor);
  if (x.is_batched || !x.defined()) {
    return tensor;
  }
  std::vector<int64_t> ones(x.value.dim() + 1, 1);
  ones[0] = level->batch_size;
  return ops::add_Tensor::call(tensor, make_batched(level, {x.value.new_zeros(ones), true}), 1);
}

inline std::vector<Tensor> spread_over_examples(const LevelPtr& level, at::TensorList tensors) {
  std::vector<Tensor> spread;
  for (const Tensor& tensor : tensors) {
    spread.push_back(spread_over_examples(level, tensor));
  }
  return spread;
}

template <class Op, size_t position, class Signature = typename Op::schema>
struct SpreadingComposite;

template <class Op, size_t position, class Result, class... Args>
struct SpreadingComposite<Op, position, Result(Args...)> {
  static Result run(c10::DispatchKeySet keys, Args... args) {
    const Operands operands(args...);
    Wrapper* top = operands.top();
    if (top == nullptr) {
      return Op::redispatch(keys.remove(kFrontKey), args...);
    }
    const LevelPtr level = top->level();
    if (yields_to_torch_func(*level, keys)) {
      return Op::redispatch(keys - kPassedByKeys, args...);
    }
    check_alive(*top);
    if (level->transform != Transform::Vmap || !any_batched(unpack(level, args)...)) {
      return Op::redispatch(traits_of<Op>().tape_keys, args...);
    }
    return decompose(level, std::index_sequence_for<Args...>(), args...);
  }

 private:
  template <size_t... positions>
  static Result decompose(const LevelPtr& level, std::index_sequence<positions...>,
                          const std::remove_reference_t<Args>&... args) {
    return Op::redispatch(traits_of<Op>().tape_keys,
                          replace<positions == position>(level, args)...);
  }

  template <bool is_spread, class T>
  static decltype(auto) replace(const LevelPtr& level, const T& arg) {
    if constexpr (is_spread) {
      return spread_over_examples(level, arg);
    } else {
      return (arg);
    }
  }
};

template <class Op, auto function, class Signature = typename Op::schema>
struct OwnDecomposition;

template <class Op, auto function, class Result, class... Args>
struct OwnDecomposition<Op, function, Result(Args...)> {
  static Result run(c10::DispatchKeySet keys, Args... args) {
    const Operands operands(args...);
    Wrapper* top = operands.top();
    if (top == nullptr) {
      return Op::redispatch(keys.remove(kFrontKey), args...);
    }
    if (yields_to_torch_func(*top->level(), keys)) {
      return Op::redispatch(keys - kPassedByKeys, args...);
    }
    check_alive(*top);
    return function(args...);
  }
};

template <class Op, class Kernel>
void install_composite_kernel() {
  const c10::OperatorName name(Op::name, Op::overload_name);
  if (traits_of<Op>().is_composite && claim(name, Coverage::Decomposition)) {
    register_kernel(name, kFrontKey,
                    c10::KernelFunction::makeFromUnboxedFunction(TORCH_FN((Kernel::run))));
  }
}

}  // namespace detail

// Spreads argument number `position` of the composite operator `Op`.
template <class Op, size_t position>
void spread_argument() {
  detail::install_composite_kernel<Op, detail::SpreadingComposite<Op, position>>();
}

// On a wrapper, the composite operator `Op` is `function`, which has its signature.
template <class Op, auto function>
void own_decomposition() {
  detail::install_composite_kernel<Op, detail::OwnDecomposition<Op, function>>();
}

}  // namespace functx
