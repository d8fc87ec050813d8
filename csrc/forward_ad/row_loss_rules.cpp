// Losses of rows of scores.
#include "forward_ad/families.h"
#include "forward_ad/loss_reduction.h"
#include "reverse_ad/recordable.h"

namespace functx {
namespace {

std::optional<Tensor> optional(const Tensor& tensor) {
  return tensor.defined() ? std::make_optional(tensor) : std::nullopt;
}

// Rows of scores, compared with those of the targets.
struct Margins {
  Margins(const Tensor& scores, const Tensor& target)
      : targets(target.reshape({-1, 1})), is_single(scores.dim() != 2) {}

  Tensor beyond_target(const Tensor& x) const {
    const Tensor rows = is_single ? x.reshape({1, -1}) : x;
    return rows.sub(rows.gather(1, targets));
  }

  Tensor targets;
  bool is_single;
};

// The sum over other classes than the target of weight * max(0, margin + score - target's)**p / C.
// Scores are [N, C], or [C] or [] for a single row.
Dual multi_margin_loss(const Dual& self, const Dual& target, const at::Scalar& p,
                       const at::Scalar& margin, const Dual& weight, int64_t reduction) {
  Tensor primal = ops::multi_margin_loss::call(self.primal, target.primal, p, margin,
                                               optional(weight.primal), reduction);
  if (!self.has_tangent()) {
    return {std::move(primal), {}};
  }
  const Margins margins(self.primal, target.primal);
  const Tensor excess = margins.beyond_target(self.primal).add(margin);
  const Tensor slope =
      p.equal(1) ? excess.gt(0).to(excess.scalar_type()) : excess.clamp_min(0).mul(2);
  Tensor terms = slope.mul(margins.beyond_target(self.tangent)).mean(1);
  if (weight.defined()) {
    terms = terms.mul(weight.primal.index_select(0, margins.targets.squeeze(1)));
  }
  Tensor tangent = reduce_loss(terms, reduction).reshape_symint(primal.sym_sizes());
  return {std::move(primal), std::move(tangent)};
}

// What it is to the scores: minus the sum of the slopes to the target's, and each slope to its own.
Dual multi_margin_loss_backward(const Dual& grad, const Dual& self, const Dual& target,
                                const at::Scalar& p, const at::Scalar& margin, const Dual& weight,
                                int64_t reduction) {
  const auto weights = optional(weight.primal);
  const auto backward = [&](const Tensor& g) {
    return ops::multi_margin_loss_backward::call(g, self.primal, target.primal, p, margin, weights,
                                                 reduction);
  };
  Tensor primal = backward(grad.primal);
  Tensor tangent = grad.has_tangent() ? backward(grad.tangent) : Tensor();
  if (self.has_tangent() && !p.equal(1)) {
    const Margins margins(self.primal, target.primal);
    const Tensor excess = margins.beyond_target(self.primal).add(margin);
    Tensor slopes = zero_unless(excess.gt(0), margins.beyond_target(self.tangent).mul(2));
    slopes = slopes.div(static_cast<double>(slopes.size(1)));
    if (weight.defined()) {
      slopes = slopes.mul(weight.primal.index_select(0, margins.targets.squeeze(1)).unsqueeze(1));
    }
    const Tensor scale = reduction == at::Reduction::Mean
                             ? grad.primal.div(static_cast<double>(slopes.size(0)))
                             : grad.primal;
    slopes = slopes.mul(scale.reshape({-1, 1}));
    const Tensor change = slopes.scatter_add(1, margins.targets, slopes.sum(1, true).neg());
    tangent = sum_of(std::move(tangent), change.reshape_symint(primal.sym_sizes()));
  }
  return {std::move(primal), std::move(tangent), false};
}

// A loss depends on its own row only, so the gradient of the sum of all, for which PyTorch has a
// kernel, holds the slopes of each. They are piecewise constant.
std::tuple<Dual, Tensor> multilabel_margin_loss(const Dual& self, const Dual& target,
                                                int64_t reduction) {
  auto [primal, is_target] =
      ops::multilabel_margin_loss_forward::call(self.primal, target.primal, reduction);
  const Tensor scores = self.primal.detach();
  const Tensor ones =
      scores.new_ones_symint(scores.sym_sizes().slice(0, scores.dim() == 2 ? 1 : 0));
  const Tensor slopes = ops::multilabel_margin_loss_backward::call(ones, scores, target.primal,
                                                                   no_reduction, is_target);
  const Tensor terms = slopes.mul(self.tangent);
  const Tensor change = reduce_loss(terms.dim() == 0 ? terms : terms.sum(-1), reduction);
  return {conform(change, std::move(primal)), std::move(is_target)};
}

// ---- gradients, in operators that can be differentiated ----

// Of the rows' losses, from that of the loss.
Tensor gradient_of_rows(const Tensor& grad, int64_t rows, int64_t reduction) {
  return (reduction == at::Reduction::Mean ? grad.div(static_cast<double>(rows)) : grad)
      .reshape({-1, 1});
}

Tensor multi_margin_gradient(const Tensor& grad, const Tensor& self, const Tensor& target,
                             const at::Scalar& p, const at::Scalar& margin,
                             const std::optional<Tensor>& weight, int64_t reduction) {
  const Margins margins(self, target);
  const Tensor excess = margins.beyond_target(self).add(margin);
  Tensor slopes = p.equal(1) ? excess.gt(0).to(excess.scalar_type()) : excess.clamp_min(0).mul(2);
  slopes = slopes.scatter(1, margins.targets, 0).div(static_cast<double>(slopes.size(1)));
  if (weight.has_value() && weight->defined()) {
    slopes = slopes.mul(weight->index_select(0, margins.targets.squeeze(1)).unsqueeze(1));
  }
  slopes = slopes.mul(gradient_of_rows(grad, slopes.size(0), reduction));
  return slopes.scatter_add(1, margins.targets, slopes.sum(1, true).neg())
      .reshape_symint(self.sym_sizes());
}

Tensor multilabel_margin_gradient(const Tensor& grad, const Tensor& self, const Tensor& target,
                                  int64_t reduction, const Tensor& is_target) {
  const Tensor scores = self.detach();
  const auto rows = scores.sym_sizes().slice(0, scores.dim() == 2 ? 1 : 0);
  const Tensor slopes = ops::multilabel_margin_loss_backward::call(
      scores.new_ones_symint(rows), scores, target, no_reduction, is_target);
  const Tensor scale = gradient_of_rows(grad, rows.empty() ? 1 : scores.size(0), reduction);
  return slopes.mul(scores.dim() == 2 ? scale : scale.reshape({}));
}

}  // namespace

FUNCTX_RULES(gradients_of_row_losses) {
  recordable<ops::multi_margin_loss_backward, multi_margin_gradient>();
  recordable<ops::multilabel_margin_loss_backward, multilabel_margin_gradient>();
}

FUNCTX_RULES(jvp_row_losses) {
  dual_rule<ops::multi_margin_loss, multi_margin_loss>();
  dual_rule<ops::multi_margin_loss_backward, multi_margin_loss_backward>();
  dual_rule<ops::multilabel_margin_loss_forward, multilabel_margin_loss>();
  linear_in_first<ops::multilabel_margin_loss_backward>();
}

}  // namespace functx
