// Connectionist temporal classification: the batch joins the sequences.
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>

#include "batching/fold.h"

namespace functx {
namespace {

// Lengths of the sequences of all examples. The operators take them as lists, which are the same
// for every example, or as tensors.
std::vector<int64_t> repeat(const LevelPtr& level, at::IntArrayRef lengths) {
  std::vector<int64_t> repeated;
  for (int64_t b = 0; b < level->batch_size; ++b) {
    repeated.insert(repeated.end(), lengths.begin(), lengths.end());
  }
  return repeated;
}
Tensor repeat(const LevelPtr& level, const Tensor& lengths) {
  return ensure_batched(unwrap_batched(level, lengths), level->batch_size).reshape(-1);
}

Batched as_tensor(const LevelPtr&, at::IntArrayRef lengths) {
  return {at::tensor(lengths, at::kLong), false};
}
Batched as_tensor(const LevelPtr& level, const Tensor& lengths) {
  return unwrap_batched(level, lengths);
}

at::IntArrayRef lengths_value(const LevelPtr&, at::IntArrayRef lengths) { return lengths; }
Tensor lengths_value(const LevelPtr& level, const Tensor& lengths) {
  return unwrap_batched(level, lengths).value;
}

bool is_batched(const LevelPtr&, at::IntArrayRef) { return false; }
bool is_batched(const LevelPtr& level, const Tensor& lengths) {
  return unwrap_batched(level, lengths).is_batched;
}

// Where there is one number, the length of the longest target; else a bound.
int64_t padded_size(const Tensor& lengths, int64_t bound) {
  if (as_wrapper(lengths) != nullptr || lengths.is_meta()) {
    return bound;
  }
  return lengths.numel() == 0 ? 0 : lengths.max().item<int64_t>();
}

// Targets of all sequences [B * N, S], from padded ones [N, S] or from ones that lie one behind the
// other, [sum of lengths]. What is beyond the length of a target does not matter.
Tensor fold_targets(const LevelPtr& level, const Batched& targets, const Batched& lengths) {
  const Tensor all = ensure_batched(targets, level->batch_size);
  if (targets.logical_dim() != 1) {
    return all.flatten(0, 1);
  }
  const Tensor each = ensure_batched(lengths, level->batch_size)
                          .to(all.device(), at::kLong)
                          .reshape({all.size(0), -1});
  const Tensor steps = at::arange(padded_size(each, all.size(1)), each.options());
  const Tensor positions = each.cumsum(-1).sub(each).unsqueeze(-1).add(steps);
  if (all.size(1) == 0) {
    return all.new_zeros({positions.size(0) * positions.size(1), 0});
  }
  const Tensor inside = positions.clamp_max(all.size(1) - 1);
  return all.gather(1, inside.flatten(1)).view({-1, steps.size(0)});
}

// log_probs [T, N, C].
Tensor fold_scores(const LevelPtr& level, const Batched& log_probs) {
  return fold_batch_into(ensure_batched(log_probs, level->batch_size), 1);
}

template <class Op, class Lengths>
std::tuple<Tensor, Tensor> ctc_loss(const LevelPtr& level, const Tensor& log_probs,
                                    const Tensor& targets, Lengths input_lengths,
                                    Lengths target_lengths, int64_t blank, bool zero_infinity) {
  const Batched scores = unwrap_batched(level, log_probs);
  const Batched labels = unwrap_batched(level, targets);
  if (!detail::any_batched(scores, labels) && !is_batched(level, input_lengths) &&
      !is_batched(level, target_lengths)) {
    auto [loss, alpha] = Op::call(scores.value, labels.value, lengths_value(level, input_lengths),
                                  lengths_value(level, target_lengths), blank, zero_infinity);
    return {make_batched(level, {loss, false}), make_batched(level, {alpha, false})};
  }
  const int64_t size = level->batch_size;
  auto [loss, alpha] = Op::call(
      fold_scores(level, scores), fold_targets(level, labels, as_tensor(level, target_lengths)),
      repeat(level, input_lengths), repeat(level, target_lengths), blank, zero_infinity);
  return {make_batched(level, {unfold_items(loss, size), true}),
          make_batched(level, {unfold_items(alpha, size), true})};
}

template <class Op, class Lengths>
Tensor ctc_loss_backward(const LevelPtr& level, const Tensor& grad, const Tensor& log_probs,
                         const Tensor& targets, Lengths input_lengths, Lengths target_lengths,
                         const Tensor& loss, const Tensor& alpha, int64_t blank,
                         bool zero_infinity) {
  const Batched grads = unwrap_batched(level, grad);
  const Batched scores = unwrap_batched(level, log_probs);
  const Batched labels = unwrap_batched(level, targets);
  const Batched losses = unwrap_batched(level, loss);
  const Batched alphas = unwrap_batched(level, alpha);
  if (!detail::any_batched(grads, scores, labels, losses, alphas) &&
      !is_batched(level, input_lengths) && !is_batched(level, target_lengths)) {
    return make_batched(
        level, {Op::call(grads.value, scores.value, labels.value,
                         lengths_value(level, input_lengths), lengths_value(level, target_lengths),
                         losses.value, alphas.value, blank, zero_infinity),
                false});
  }
  const int64_t size = level->batch_size;
  const Tensor result =
      Op::call(fold_items(grads, size), fold_scores(level, scores),
               fold_targets(level, labels, as_tensor(level, target_lengths)),
               repeat(level, input_lengths), repeat(level, target_lengths),
               fold_items(losses, size), fold_items(alphas, size), blank, zero_infinity);
  return make_batched(level, {unfold_batch_from(result, 1, size), true});
}

}  // namespace

FUNCTX_RULES(ctc_loss) {
  using Lists = at::IntArrayRef;
  level_rule<ops::_ctc_loss>(ctc_loss<ops::_ctc_loss, Lists>);
  level_rule<ops::_ctc_loss_backward>(ctc_loss_backward<ops::_ctc_loss_backward, Lists>);
  level_rule<ops::_ctc_loss_Tensor>(ctc_loss<ops::_ctc_loss_Tensor, const Tensor&>);
  level_rule<ops::_ctc_loss_backward_Tensor>(
      ctc_loss_backward<ops::_ctc_loss_backward_Tensor, const Tensor&>);
}

}  // namespace functx
