// How a batching rule is registered.
//
//   Batched mv(const Batched& self, const Batched& vec) { ... }
//
//   FUNCTX_RULES(linear_algebra) {
//     batching_rule<ops::mv, mv>();
//   }
//
// A rule is a function with the parameters of the operator, in which every tensor has become a
// `Batched`, an optional tensor a `Batched` that may be undefined, and a list of tensors a
// `std::vector<Batched>`. It returns a `Batched`, a tuple or a vector of them, or, for an in-place
// operator, nothing.
#pragma once

#include <ATen/Operators.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "batching/batched_tensor.h"
#include "batching/inplace.h"
#include "core/kernel.h"

namespace functx {

namespace ops = at::_ops;

namespace detail {

inline Batched unpack(const LevelPtr& level, const Tensor& tensor) {
  return unwrap_batched(level, tensor);
}

inline Batched unpack(const LevelPtr& level, const std::optional<Tensor>& tensor) {
  return tensor.has_value() ? unwrap_batched(level, *tensor) : Batched{};
}

template <class Tensors>
std::vector<Batched> unpack_list(const LevelPtr& level, const Tensors& tensors) {
  std::vector<Batched> unpacked;
  unpacked.reserve(tensors.size());
  for (const auto& tensor : tensors) {
    unpacked.push_back(unpack(level, tensor));
  }
  return unpacked;
}

inline std::vector<Batched> unpack(const LevelPtr& level, const at::ITensorListRef& tensors) {
  return unpack_list(level, tensors);
}

inline std::vector<Batched> unpack(const LevelPtr& level, const at::TensorList& tensors) {
  return unpack_list(level, tensors);
}

inline std::vector<Batched> unpack(const LevelPtr& level,
                                   const c10::List<std::optional<Tensor>>& tensors) {
  std::vector<Batched> unpacked;
  unpacked.reserve(tensors.size());
  for (const std::optional<Tensor> tensor : tensors) {
    unpacked.push_back(unpack(level, tensor));
  }
  return unpacked;
}

template <class T>
const T& unpack(const LevelPtr&, const T& other) {
  return other;
}

template <class... Args>
bool any_batched(const Args&... args) {
  const auto is_batched = [](const auto& arg) {
    if constexpr (std::is_same_v<std::decay_t<decltype(arg)>, Batched>) {
      return arg.is_batched;
    } else if constexpr (std::is_same_v<std::decay_t<decltype(arg)>, std::vector<Batched>>) {
      return std::any_of(arg.begin(), arg.end(), [](const Batched& b) { return b.is_batched; });
    } else {
      return false;
    }
  };
  return (is_batched(args) || ...);
}

inline Tensor pack(const LevelPtr& level, Batched result) {
  return make_batched(level, std::move(result));
}

inline std::vector<Tensor> pack(const LevelPtr& level, std::vector<Batched> results) {
  std::vector<Tensor> packed;
  packed.reserve(results.size());
  for (auto& result : results) {
    packed.push_back(make_batched(level, std::move(result)));
  }
  return packed;
}

// Elements that are not tensors (philox seeds, sizes) pass through.
template <class T>
T pack(const LevelPtr&, T result) {
  return result;
}

template <class... Results>
auto pack(const LevelPtr& level, std::tuple<Results...> results) {
  return std::apply([&](auto&... each) { return std::make_tuple(pack(level, std::move(each))...); },
                    results);
}

template <class Op, auto rule, class Signature = typename Op::schema>
struct BatchingAdapter;

template <class Op, auto rule, class Result, class... Args>
struct BatchingAdapter<Op, rule, Result(Args...)> {
  static Result call(const LevelPtr& level, Args... args) {
    if constexpr (is_inplace<Result(Args...)>) {
      Tensor& self = std::get<0>(std::forward_as_tuple(args...));
      check_inplace(Op::name, level, self, any_batched(unpack(level, args)...));
      rule(unpack(level, args)...);
      if (auto* wrapper = at_level<BatchedTensor>(self, *level)) {
        wrapper->refresh();
      }
      return self;
    } else {
      return pack(level, rule(unpack(level, args)...));
    }
  }
};

template <class Op, auto function, class Signature = typename Op::schema>
struct DecompositionAdapter;

// The tape of this level has recorded the operator as a whole: its parts are not to be recorded
// too.
inline Tensor without_tape(const LevelPtr& level, const Tensor& tensor) {
  const auto* wrapper = at_level<BatchedTensor>(tensor, *level);
  return wrapper != nullptr ? make_batched(level, wrapper->batched()) : tensor;
}
template <class T>
const T& without_tape(const LevelPtr&, const T& other) {
  return other;
}

template <class Op, auto function, class Result, class... Args>
struct DecompositionAdapter<Op, function, Result(Args...)> {
  static Result call(const LevelPtr& level, Args... args) {
    return function(without_tape(level, args)...);
  }
};

}  // namespace detail

template <class Op, auto rule>
void batching_rule() {
  Rules<Op>::batching = &detail::BatchingAdapter<Op, rule>::call;
  install_kernel<Op>();
}

// A rule that is written in other operators, on the batched tensors themselves: a function with
// exactly the operator's signature.
template <class Op, auto function>
void batching_decomposition() {
  Rules<Op>::batching = &detail::DecompositionAdapter<Op, function>::call;
  install_kernel<Op>();
}

}  // namespace functx
