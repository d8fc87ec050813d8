// The family of pointwise operators: one element of each operand makes one element of the result.
// Any number of tensor arguments, functional or in place, optional or not; one line registers one.
#pragma once

#include <algorithm>

#include "batching/dims.h"
#include "batching/promotion.h"
#include "batching/rule.h"

namespace functx {

namespace detail {

// What the operands of one call have in common.
class PointwiseCall {
 public:
  template <class... Args>
  explicit PointwiseCall(const LevelPtr& level, const Args&... args) : level_(level) {
    (see(args), ...);
    if (promotion_.needed()) [[unlikely]] {
      (promotion_.see(args), ...);
    }
  }

  bool is_batched() const { return is_batched_; }
  // Logical dimensions of the operand that has most.
  int64_t rank() const { return rank_; }

  Tensor align(const Tensor& tensor) const {
    const auto* wrapper = at_level<BatchedTensor>(tensor, *level_);
    if (wrapper == nullptr) {
      return tensor;
    }
    const Batched operand = wrapper->batched();
    return align_rank({promotion_.cast(operand), operand.is_batched}, rank_);
  }

  std::optional<Tensor> align(const std::optional<Tensor>& tensor) const {
    return tensor.has_value() ? std::make_optional(align(*tensor)) : std::nullopt;
  }

  template <class T>
  const T& align(const T& other) const {
    return other;
  }

 private:
  void see(const Tensor& tensor) {
    if (!tensor.defined()) {
      return;
    }
    rank_ = std::max(rank_, tensor.dim());
    const auto* wrapper = at_level<BatchedTensor>(tensor, *level_);
    is_batched_ = is_batched_ || (wrapper != nullptr && wrapper->is_batched());
    promotion_.note_dtype(tensor.scalar_type());
  }

  void see(const std::optional<Tensor>& tensor) {
    if (tensor.has_value()) {
      see(*tensor);
    }
  }

  template <class T>
  void see(const T&) {}

  const LevelPtr& level_;
  Promotion promotion_;
  int64_t rank_ = 0;
  bool is_batched_ = false;
};

template <class Op, class Signature = typename Op::schema>
struct Pointwise;

template <class Op, class Result, class... Args>
struct Pointwise<Op, Result(Args...)> {
  static Result call(const LevelPtr& level, Args... args) {
    const PointwiseCall operands(level, args...);
    const auto pack_all = [&](Tensor value) {
      return make_batched(level, {std::move(value), operands.is_batched()});
    };
    if constexpr (std::is_same_v<Result, Tensor>) {
      return pack_all(Op::call(operands.align(args)...));
    } else {
      return std::apply(
          [&](auto... values) { return std::make_tuple(pack_all(std::move(values))...); },
          Op::call(operands.align(args)...));
    }
  }
};

template <class Op, class... Args>
struct Pointwise<Op, Tensor&(Tensor&, Args...)> {
  static Tensor& call(const LevelPtr& level, Tensor& self, Args... args) {
    const PointwiseCall operands(level, self, args...);
    check_inplace(Op::name, level, self, operands.is_batched());
    Tensor value = unwrap_batched(level, self).value;
    Op::call(value, operands.align(args)...);
    return self;
  }
};

}  // namespace detail

template <class... Ops>
void pointwise() {
  ((Rules<Ops>::batching = &detail::Pointwise<Ops>::call, install_kernel<Ops>()), ...);
}

}  // namespace functx
