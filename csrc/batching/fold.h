// The family of operators that work on every item of a minibatch [N, ...] by itself: pooling,
// padding, resampling. The batch joins N, for one call. One line registers several.
#pragma once

#include <array>

#include "batching/by_loop.h"
#include "batching/dims.h"
#include "batching/rule.h"

namespace functx {

// [B, N, ...] to [B * N, ...], where an unbatched value counts as B equal ones; and back.
inline Tensor fold_items(const Batched& x, int64_t batch_size) {
  return ensure_batched(x, batch_size).flatten(0, 1);
}
inline Tensor unfold_items(const Tensor& folded, int64_t batch_size) {
  return folded.unflatten(0, {batch_size, each_of(folded.size(0), batch_size)});
}

// As an operator takes it: none if undefined.
inline std::optional<Tensor> optional_value(const Batched& x) {
  return x.defined() ? std::make_optional(x.value) : std::nullopt;
}

namespace detail {

// Whether an operator takes one item without dimension N too.
enum class Items { Required, Optional };

// What the tensors of one call have in common.
class FoldedCall {
 public:
  template <class... Args>
  FoldedCall(const LevelPtr& level, int64_t item_rank, Items items, const Args&... args)
      : level_(level), item_rank_(item_rank), has_items_(items == Items::Required) {
    (see(args), ...);
  }

  bool is_batched() const { return is_batched_; }

  // Whether all tensors are minibatches, or all are single items: the batch becomes their N.
  bool fits() const {
    const int64_t rank = item_rank_ + 1;
    return lowest_ == highest_ && (lowest_ == rank || (!has_items_ && lowest_ == item_rank_));
  }

  Tensor fold(const Tensor& tensor) const {
    const Batched x = unwrap_batched(level_, tensor);
    if (!is_batched_ || !x.defined()) {
      return x.value;
    }
    const Tensor folded =
        is_item() ? ensure_batched(x, level_->batch_size) : fold_items(x, level_->batch_size);
    // Kernels read indices they made themselves, so they take them to be contiguous.
    return at::isIntegralType(folded.scalar_type(), /*includeBool=*/false) ? folded.contiguous()
                                                                           : folded;
  }

  std::optional<Tensor> fold(const std::optional<Tensor>& tensor) const {
    return tensor.has_value() ? std::make_optional(fold(*tensor)) : std::nullopt;
  }

  template <class T>
  const T& fold(const T& other) const {
    return other;
  }

  Tensor unfold(Tensor result) const {
    if (is_batched_ && !is_item() && result.defined()) {
      result = unfold_items(result, level_->batch_size);
    }
    return make_batched(level_, {std::move(result), is_batched_});
  }

  template <class... Results>
  auto unfold(std::tuple<Results...> results) const {
    return std::apply([&](auto&... each) { return std::make_tuple(unfold(std::move(each))...); },
                      results);
  }

 private:
  bool is_item() const { return highest_ == item_rank_; }

  void see(const Tensor& tensor) {
    if (!tensor.defined()) {
      return;
    }
    lowest_ = std::min(lowest_, tensor.dim());
    highest_ = std::max(highest_, tensor.dim());
    is_batched_ = is_batched_ || unwrap_batched(level_, tensor).is_batched;
  }

  void see(const std::optional<Tensor>& tensor) {
    if (tensor.has_value()) {
      see(*tensor);
    }
  }

  template <class T>
  void see(const T&) {}

  const LevelPtr& level_;
  int64_t item_rank_;
  int64_t lowest_ = std::numeric_limits<int64_t>::max();
  int64_t highest_ = 0;
  bool has_items_;
  bool is_batched_ = false;
};

template <class Op, int64_t item_rank, Items items, class Signature = typename Op::schema>
struct FoldItems;

template <class Op, int64_t item_rank, Items items, class Result, class... Args>
struct FoldItems<Op, item_rank, items, Result(Args...)> {
  static Result call(const LevelPtr& level, Args... args) {
    const FoldedCall operands(level, item_rank, items, args...);
    if (operands.is_batched() && !operands.fits()) {
      return by_loop<Op>(args...);
    }
    return operands.unfold(Op::call(operands.fold(args)...));
  }
};

}  // namespace detail

// Operators on [N, ...] tensors, one item of which has `item_rank` dimensions.
template <int64_t item_rank, class... Ops>
void fold_items_of_rank() {
  ((Rules<Ops>::batching = &detail::FoldItems<Ops, item_rank, detail::Items::Required>::call,
    install_kernel<Ops>()),
   ...);
}

// The same, where single items without dimension N are taken too.
template <int64_t item_rank, class... Ops>
void fold_items_or_one_of_rank() {
  ((Rules<Ops>::batching = &detail::FoldItems<Ops, item_rank, detail::Items::Optional>::call,
    install_kernel<Ops>()),
   ...);
}

}  // namespace functx
