// Composite operators that write into what they computed from one of their arguments. If that
// argument is the same for every example and another is not, the write has no place to go; so the
// argument is spread over the examples before the operator decomposes.
#pragma once

#include "batching/rewrite.h"

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
  static std::optional<Result> rewrite(const LevelPtr& level, bool, Args... args) {
    if (level->transform != Transform::Vmap || !any_batched(unpack(level, args)...)) {
      return std::nullopt;
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

}  // namespace detail

// Spreads argument number `position` of the composite operator `Op`.
template <class Op, size_t position>
void spread_argument() {
  if (traits_of<Op>().is_composite) {
    rewritten<Op, detail::SpreadingComposite<Op, position>::rewrite>();
  }
}

}  // namespace functx
