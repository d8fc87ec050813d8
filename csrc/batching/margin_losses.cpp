// Losses of rows of scores whose terms are margins between classes: one call over the rows of all
// examples, reduced per example.
#include <ATen/core/Reduction.h>

#include "batching/by_loop.h"
#include "batching/dims.h"
#include "batching/fold.h"

namespace functx {
namespace {

// Scores are [N, C], or [C] or [] for a single row: all become [B * N, C].
class Rows {
 public:
  Rows(const LevelPtr& level, const Tensor& scores)
      : examples_(level->batch_size),
        rows_(scores.dim() == 2 ? scores.size(0) : 1),
        classes_(scores.dim() == 0 ? 1 : scores.size(-1)) {}

  // What each class has, [B * N, C].
  Tensor of_classes(const Batched& x) const {
    return ensure_batched(x, examples_).reshape({examples_ * rows_, classes_});
  }

  // What each row has, [B * N].
  Tensor of_rows(const Batched& x) const {
    return ensure_batched(x, examples_).reshape({examples_ * rows_});
  }

  // The weight of each row's target: a loss and its gradient are in proportion to it.
  Tensor of_targets(const Tensor& weight, const Tensor& targets) const {
    return weight.gather(1, targets.view({examples_, rows_})).view({examples_ * rows_});
  }

  // Losses [B * N] of rows. A single row may have a loss of dimension 0 even when unreduced.
  Tensor reduce(const Tensor& losses, int64_t reduction, bool keeps_rows) const {
    const Tensor each = losses.view({examples_, rows_});
    if (reduction == at::Reduction::None && keeps_rows) {
      return each;
    }
    return reduction == at::Reduction::Mean ? each.mean(1) : each.sum(1);
  }

  // The gradient of every row's loss, from that of what `reduce` gives.
  Tensor spread(const Batched& grad, int64_t reduction) const {
    const Tensor given = ensure_batched(grad, examples_);
    const Tensor each = reduction == at::Reduction::Mean ? given.div(rows_) : given;
    return (each.dim() == 1 ? each.unsqueeze(1) : each)
        .expand({examples_, rows_})
        .reshape({examples_ * rows_});
  }

 private:
  int64_t examples_, rows_, classes_;
};

std::optional<Tensor> shared_weight(const Batched& weight) {
  return weight.is_batched ? std::nullopt : optional_value(weight);
}

// --- one target for each row ---------------------------------------------------------------------

// Other shapes are errors, for PyTorch to raise.
bool is_multi_margin(const Tensor& self, const Tensor& target,
                     const std::optional<Tensor>& weight) {
  const int64_t rows = self.dim() == 2 ? self.size(0) : 1;
  return self.dim() <= 2 && target.dim() <= 1 && target.numel() == rows &&
         (!weight.has_value() || !weight->defined() ||
          (self.dim() > 0 && weight->dim() == 1 && weight->size(0) == self.size(-1)));
}

Tensor multi_margin_loss(const LevelPtr& level, const Tensor& self, const Tensor& target,
                         const at::Scalar& p, const at::Scalar& margin,
                         const std::optional<Tensor>& weight, int64_t reduction) {
  using Op = ops::multi_margin_loss;
  const Batched scores = unwrap_batched(level, self);
  const Batched targets = unwrap_batched(level, target);
  const Batched weights = detail::unpack(level, weight);
  if (!detail::any_batched(scores, targets, weights)) {
    return make_batched(
        level, {Op::call(scores.value, targets.value, p, margin, shared_weight(weights), reduction),
                false});
  }
  if (!is_multi_margin(self, target, weight)) {
    return by_loop<Op>(self, target, p, margin, weight, reduction);
  }
  const Rows rows(level, self);
  const Tensor all_targets = rows.of_rows(targets);
  Tensor losses = Op::call(rows.of_classes(scores), all_targets, p, margin, shared_weight(weights),
                           at::Reduction::None);
  if (weights.is_batched) {
    losses = losses.mul(rows.of_targets(weights.value, all_targets));
  }
  return make_batched(level, {rows.reduce(losses, reduction, target.dim() > 0), true});
}

Tensor multi_margin_loss_backward(const LevelPtr& level, const Tensor& grad, const Tensor& self,
                                  const Tensor& target, const at::Scalar& p,
                                  const at::Scalar& margin, const std::optional<Tensor>& weight,
                                  int64_t reduction) {
  using Op = ops::multi_margin_loss_backward;
  const Batched grads = unwrap_batched(level, grad);
  const Batched scores = unwrap_batched(level, self);
  const Batched targets = unwrap_batched(level, target);
  const Batched weights = detail::unpack(level, weight);
  if (!detail::any_batched(grads, scores, targets, weights)) {
    return make_batched(level, {Op::call(grads.value, scores.value, targets.value, p, margin,
                                         shared_weight(weights), reduction),
                                false});
  }
  if (!is_multi_margin(self, target, weight)) {
    return by_loop<Op>(grad, self, target, p, margin, weight, reduction);
  }
  const Rows rows(level, self);
  const Tensor all_targets = rows.of_rows(targets);
  Tensor each = rows.spread(grads, reduction);
  if (weights.is_batched) {
    each = each.mul(rows.of_targets(weights.value, all_targets));
  }
  const Tensor result = Op::call(each, rows.of_classes(scores), all_targets, p, margin,
                                 shared_weight(weights), at::Reduction::None);
  return make_batched(level,
                      {result.reshape(ensure_batched(scores, level->batch_size).sizes()), true});
}

// --- several targets for each row ----------------------------------------------------------------

bool is_multilabel(const Tensor& self, const Tensor& target) {
  return self.dim() == 2 ? target.sizes() == self.sizes()
                         : self.dim() <= 1 && target.dim() <= 1 && target.numel() == self.numel();
}

std::tuple<Tensor, Tensor> multilabel_margin_loss_forward(const LevelPtr& level, const Tensor& self,
                                                          const Tensor& target, int64_t reduction) {
  using Op = ops::multilabel_margin_loss_forward;
  const Batched scores = unwrap_batched(level, self);
  const Batched targets = unwrap_batched(level, target);
  if (!detail::any_batched(scores, targets)) {
    auto [loss, is_target] = Op::call(scores.value, targets.value, reduction);
    return {make_batched(level, {loss, false}), make_batched(level, {is_target, false})};
  }
  if (!is_multilabel(self, target)) {
    return by_loop<Op>(self, target, reduction);
  }
  const Rows rows(level, self);
  auto [losses, is_target] =
      Op::call(rows.of_classes(scores), rows.of_classes(targets), at::Reduction::None);
  const Tensor shaped = is_target.reshape(ensure_batched(targets, level->batch_size).sizes());
  return {make_batched(level, {rows.reduce(losses, reduction, target.dim() == 2), true}),
          make_batched(level, {shaped, true})};
}

Tensor multilabel_margin_loss_backward(const LevelPtr& level, const Tensor& grad,
                                       const Tensor& self, const Tensor& target, int64_t reduction,
                                       const Tensor& is_target) {
  using Op = ops::multilabel_margin_loss_backward;
  const Batched grads = unwrap_batched(level, grad);
  const Batched scores = unwrap_batched(level, self);
  const Batched targets = unwrap_batched(level, target);
  const Batched marks = unwrap_batched(level, is_target);
  if (!detail::any_batched(grads, scores, targets, marks)) {
    return make_batched(
        level, {Op::call(grads.value, scores.value, targets.value, reduction, marks.value), false});
  }
  if (!is_multilabel(self, target)) {
    return by_loop<Op>(grad, self, target, reduction, is_target);
  }
  const Rows rows(level, self);
  const Tensor result =
      Op::call(rows.spread(grads, reduction), rows.of_classes(scores), rows.of_classes(targets),
               at::Reduction::None, rows.of_classes(marks));
  return make_batched(level,
                      {result.reshape(ensure_batched(scores, level->batch_size).sizes()), true});
}

}  // namespace

FUNCTX_RULES(margin_losses) {
  level_rule<ops::multi_margin_loss>(multi_margin_loss);
  level_rule<ops::multi_margin_loss_backward>(multi_margin_loss_backward);
  level_rule<ops::multilabel_margin_loss_forward>(multilabel_margin_loss_forward);
  level_rule<ops::multilabel_margin_loss_backward>(multilabel_margin_loss_backward);
}

}  // namespace functx
