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

// What targets [B, ...] ask for; those to be ignored stand as class 0.
struct Targets {
  Targets(const Tensor& target, int64_t ignore_index)
      : is_ignored(target.eq(ignore_index)),
        classes(target.masked_fill(is_ignored, 0).to(at::kLong)) {}

  // The weight of the class of each, 0 where it is ignored.
  Tensor weights(const Batched& weight) const {
    const Tensor flat = classes.reshape({classes.size(0), -1});
    const Tensor picked = weight.is_batched ? weight.value.gather(1, flat)
                                            : weight.value.index_select(0, flat.flatten());
    return picked.reshape_symint(classes.sym_sizes()).masked_fill(is_ignored, 0);
  }

  // The scores of the classes, which lie along `dim`: quicker than the operator, which does the
  // same for one target after the other.
  Tensor scores(const Tensor& all, int64_t dim) const {
    return all.gather(dim, classes.unsqueeze(dim)).squeeze(dim).masked_fill(is_ignored, 0);
  }

  Tensor is_ignored;
  Tensor classes;
};

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
  const int64_t size = level->batch_size;
  const int64_t dim = self.dim() > item_rank ? 2 : 1;
  const Tensor all = ensure_batched(scores, size);
  const Targets wanted(ensure_batched(targets, size), ignore_index.guard_int(__FILE__, __LINE__));
  TORCH_CHECK(wanted.classes.sizes().equals(all.select(dim, 0).sizes()), Op::name,
              ": scores of shape ", all.sizes().slice(1), " do not fit targets of shape ",
              wanted.classes.sizes().slice(1));
  Tensor each = wanted.scores(all, dim).neg();
  // Without weights, whether a target counts.
  const Tensor factors =
      weights.defined() ? wanted.weights(weights) : wanted.is_ignored.logical_not();
  if (weights.defined()) {
    each = each.mul(factors);
  }
  if (reduction == at::Reduction::None) {
    return {make_batched(level, {each, true}),
            self.dim() > 1 ? make_batched(level, {each.new_zeros({}), false})
                           : make_batched(level, {factors.to(each.scalar_type()), true})};
  }
  const Tensor total = sum_each(factors).to(each.scalar_type());
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
    each =
        each.mul(Targets(all_targets, ignore_index.guard_int(__FILE__, __LINE__)).weights(weights));
  }
  const Tensor result =
      Op::call(rows.fold({each, true}), rows.fold(scores), rows.fold({all_targets, true}),
               shared_weight(weights), at::Reduction::None, ignore_index, each.new_zeros({}));
  return make_batched(level, {rows.unfold(result), true});
}

}  // namespace

FUNCTX_RULES(class_losses) {
  level_rule<ops::nll_loss_forward>(nll_forward<ops::nll_loss_forward, 1>);
  level_rule<ops::nll_loss_backward>(nll_backward<ops::nll_loss_backward, 1>);
  level_rule<ops::nll_loss2d_forward>(nll_forward<ops::nll_loss2d_forward, 3>);
  level_rule<ops::nll_loss2d_backward>(nll_backward<ops::nll_loss2d_backward, 3>);
}

}  // namespace functx
