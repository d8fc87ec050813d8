// Losses of rows of class scores: one call without reduction over all rows of the batch, reduced
// per example.
#include "batching/fold.h"
#include "batching/loss_reduction.h"

namespace functx {
namespace {

// Scores [N, C, ...] or [C], what is known of each row [N, ...] or [].
class Rows {
 public:
  Rows(const LevelPtr& level, bool has_items) : size_(level->batch_size), has_items_(has_items) {}

  Tensor fold(const Batched& x) const {
    return has_items_ ? fold_items(x, size_) : ensure_batched(x, size_);
  }
  Tensor unfold(const Tensor& folded) const {
    return has_items_ ? unfold_items(folded, size_) : folded;
  }
  int64_t batch_size() const { return size_; }

 private:
  int64_t size_;
  bool has_items_;
};

std::optional<Tensor> shared_weight(const Batched& weight) {
  return weight.defined() && !weight.is_batched ? std::make_optional(weight.value) : std::nullopt;
}

// The weight of the class of each target [B, ...], 0 where the target is ignored.
Tensor target_weights(const Tensor& target, const Batched& weight, int64_t ignore_index,
                      at::ScalarType dtype) {
  const Tensor is_ignored = target.eq(ignore_index);
  if (!weight.defined()) {
    return is_ignored.logical_not().to(dtype);
  }
  const Tensor classes = target.masked_fill(is_ignored, 0);
  const Tensor flat = classes.reshape({target.size(0), -1});
  const Tensor weights = weight.is_batched ? weight.value.gather(1, flat)
                                           : weight.value.index_select(0, flat.flatten());
  return weights.reshape_symint(target.sym_sizes()).masked_fill(is_ignored, 0);
}

Tensor sum_each(const Tensor& values) { return reduce_each(values, at::Reduction::Sum); }

// The gradient of every row's loss, [B, ...] shaped like `target`, from that of the reduced loss.
// `count` is what a mean divided by.
template <class Count>
Tensor spread(const Batched& grad, const Tensor& target, int64_t reduction, const Count& count) {
  if (reduction == at::Reduction::None) {
    return ensure_batched(grad, target.size(0));
  }
  Tensor each = reduction == at::Reduction::Mean ? grad.value.div(count) : grad.value;
  if (each.dim() > 0) {
    for (int64_t dim = 1; dim < target.dim(); ++dim) {
      each = each.unsqueeze(-1);
    }
  }
  return each.expand_symint(target.sym_sizes());
}

// Whether scores and targets are shaped as the operator wants them: nll_loss takes a single row
// too, nll_loss2d images only.
template <int64_t item_rank>
bool is_class_loss(const Tensor& self, const Tensor& target) {
  return (self.dim() == item_rank + 1 || (item_rank == 1 && self.dim() == 1)) &&
         target.dim() == self.dim() - 1;
}

template <class Op, int64_t item_rank>
std::tuple<Tensor, Tensor> nll_forward(const LevelPtr& level, const Tensor& self,
                                       const Tensor& target, const std::optional<Tensor>& weight,
                                       int64_t reduction, c10::SymInt ignore_index) {
  const Batched scores = unwrap_batched(level, self);
  const Batched targets = unwrap_batched(level, target);
  const Batched weights = detail::unpack(level, weight);
  if (!detail::any_batched(scores, targets, weights)) {
    auto [loss, total] =
        Op::call(scores.value, targets.value, shared_weight(weights), reduction, ignore_index);
    return {make_batched(level, {loss, false}), make_batched(level, {total, false})};
  }
  if (!is_class_loss<item_rank>(self, target)) {
    return by_loop<Op>(self, target, weight, reduction, ignore_index);
  }
  const Rows rows(level, self.dim() > item_rank);
  Tensor each =
      rows.unfold(std::get<0>(Op::call(rows.fold(scores), rows.fold(targets),
                                       shared_weight(weights), at::Reduction::None, ignore_index)));
  if (reduction == at::Reduction::None && self.dim() > 1 && !weights.is_batched) {
    return {make_batched(level, {each, true}), make_batched(level, {each.new_zeros({}), false})};
  }
  const Tensor factors =
      target_weights(ensure_batched(targets, rows.batch_size()), weights,
                     ignore_index.guard_int(__FILE__, __LINE__), each.scalar_type());
  if (weights.is_batched) {
    // An ignored target has loss 0, and factor 0.
    each = each.mul(factors);
  }
  if (reduction == at::Reduction::None) {
    return {make_batched(level, {each, true}),
            self.dim() > 1 ? make_batched(level, {each.new_zeros({}), false})
                           : make_batched(level, {factors, true})};
  }
  const Tensor total = sum_each(factors);
  const Tensor sum = sum_each(each);
  return {make_batched(level, {reduction == at::Reduction::Mean ? sum.div(total) : sum, true}),
          make_batched(level, {total, true})};
}

template <class Op, int64_t item_rank>
Tensor nll_backward(const LevelPtr& level, const Tensor& grad, const Tensor& self,
                    const Tensor& target, const std::optional<Tensor>& weight, int64_t reduction,
                    c10::SymInt ignore_index, const Tensor& total_weight) {
  const Batched grads = unwrap_batched(level, grad);
  const Batched scores = unwrap_batched(level, self);
  const Batched targets = unwrap_batched(level, target);
  const Batched weights = detail::unpack(level, weight);
  const Batched total = unwrap_batched(level, total_weight);
  if (!detail::any_batched(grads, scores, targets, weights, total)) {
    return make_batched(level,
                        {Op::call(grads.value, scores.value, targets.value, shared_weight(weights),
                                  reduction, ignore_index, total.value),
                         false});
  }
  if (!is_class_loss<item_rank>(self, target)) {
    return by_loop<Op>(grad, self, target, weight, reduction, ignore_index, total_weight);
  }
  const Rows rows(level, self.dim() > item_rank);
  const Tensor all_targets = ensure_batched(targets, rows.batch_size());
  Tensor each = spread(grads, all_targets, reduction, total.value);
  if (weights.is_batched) {
    each = each.mul(target_weights(all_targets, weights, ignore_index.guard_int(__FILE__, __LINE__),
                                   each.scalar_type()));
  }
  const Tensor result =
      Op::call(rows.fold({each, true}), rows.fold(scores), rows.fold({all_targets, true}),
               shared_weight(weights), at::Reduction::None, ignore_index, each.new_zeros({}));
  return make_batched(level, {rows.unfold(result), true});
}

// --- connectionist temporal classification
// ----------------------------------------------------------

std::vector<int64_t> repeat(at::IntArrayRef lengths, int64_t times) {
  std::vector<int64_t> repeated;
  for (int64_t i = 0; i < times; ++i) {
    repeated.insert(repeated.end(), lengths.begin(), lengths.end());
  }
  return repeated;
}

// log_probs [T, N, C] and targets [N, S]. Targets one behind the other, [sum of lengths], go by the
// loop.
bool is_ctc_loss(const Tensor& log_probs, const Tensor& targets) {
  return log_probs.dim() == 3 && targets.dim() == 2 && log_probs.size(1) == targets.size(0);
}

std::tuple<Tensor, Tensor> ctc_loss(const LevelPtr& level, const Tensor& log_probs,
                                    const Tensor& targets, at::IntArrayRef input_lengths,
                                    at::IntArrayRef target_lengths, int64_t blank,
                                    bool zero_infinity) {
  const Batched scores = unwrap_batched(level, log_probs);
  const Batched labels = unwrap_batched(level, targets);
  using Op = ops::_ctc_loss;
  if (!detail::any_batched(scores, labels)) {
    auto [loss, alpha] =
        Op::call(scores.value, labels.value, input_lengths, target_lengths, blank, zero_infinity);
    return {make_batched(level, {loss, false}), make_batched(level, {alpha, false})};
  }
  if (!is_ctc_loss(log_probs, targets)) {
    return by_loop<Op>(log_probs, targets, input_lengths, target_lengths, blank, zero_infinity);
  }
  const int64_t size = level->batch_size;
  auto [loss, alpha] =
      Op::call(fold_batch_into(ensure_batched(scores, size), 1), fold_items(labels, size),
               repeat(input_lengths, size), repeat(target_lengths, size), blank, zero_infinity);
  return {make_batched(level, {unfold_items(loss, size), true}),
          make_batched(level, {unfold_items(alpha, size), true})};
}

Tensor ctc_loss_backward(const LevelPtr& level, const Tensor& grad, const Tensor& log_probs,
                         const Tensor& targets, at::IntArrayRef input_lengths,
                         at::IntArrayRef target_lengths, const Tensor& loss, const Tensor& alpha,
                         int64_t blank, bool zero_infinity) {
  const Batched grads = unwrap_batched(level, grad);
  const Batched scores = unwrap_batched(level, log_probs);
  const Batched labels = unwrap_batched(level, targets);
  const Batched losses = unwrap_batched(level, loss);
  const Batched alphas = unwrap_batched(level, alpha);
  using Op = ops::_ctc_loss_backward;
  if (!detail::any_batched(grads, scores, labels, losses, alphas)) {
    return make_batched(
        level, {Op::call(grads.value, scores.value, labels.value, input_lengths, target_lengths,
                         losses.value, alphas.value, blank, zero_infinity),
                false});
  }
  if (!is_ctc_loss(log_probs, targets)) {
    return by_loop<Op>(grad, log_probs, targets, input_lengths, target_lengths, loss, alpha, blank,
                       zero_infinity);
  }
  const int64_t size = level->batch_size;
  const Tensor result =
      Op::call(fold_items(grads, size), fold_batch_into(ensure_batched(scores, size), 1),
               fold_items(labels, size), repeat(input_lengths, size), repeat(target_lengths, size),
               fold_items(losses, size), fold_items(alphas, size), blank, zero_infinity);
  return make_batched(level, {unfold_batch_from(result, 1, size), true});
}

}  // namespace

FUNCTX_RULES(class_losses) {
  level_rule<ops::nll_loss_forward>(nll_forward<ops::nll_loss_forward, 1>);
  level_rule<ops::nll_loss_backward>(nll_backward<ops::nll_loss_backward, 1>);
  level_rule<ops::nll_loss2d_forward>(nll_forward<ops::nll_loss2d_forward, 3>);
  level_rule<ops::nll_loss2d_backward>(nll_backward<ops::nll_loss2d_backward, 3>);
  level_rule<ops::_ctc_loss>(ctc_loss);
  level_rule<ops::_ctc_loss_backward>(ctc_loss_backward);
}

}  // namespace functx
