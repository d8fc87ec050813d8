// Losses of one element beside another. Each is computed element by element over the whole batch,
// then reduced per example.
#include <ATen/ExpandUtils.h>
#include <ATen/core/Reduction.h>

#include "batching/dims.h"
#include "batching/loss_reduction.h"
#include "batching/pointwise.h"

namespace functx {
namespace {

// A value with logical rank `rank` and a batch dimension, expanded if it is the same for every
// example: some losses take the shape of their result from one operand.
Tensor expand_batch(const LevelPtr& level, const Tensor& tensor, const Tensor& aligned,
                    int64_t rank) {
  if (unwrap_batched(level, tensor).is_batched) {
    return aligned;
  }
  return align_rank({ensure_batched({aligned, false}, level->batch_size), true}, rank);
}

// What a loss calls instead of its arguments: all aligned, the reduction left for later.
class LossOperands {
 public:
  template <class... Args>
  explicit LossOperands(const LevelPtr& level, const Args&... args)
      : level_(level), operands_(level, args...) {}

  bool is_batched() const { return operands_.is_batched(); }
  int64_t rank() const { return operands_.rank(); }

  Tensor expand(const Tensor& tensor) const {
    return expand_batch(level_, tensor, operands_.align(tensor), rank());
  }

  auto align(const Tensor& tensor) const { return operands_.align(tensor); }
  auto align(const std::optional<Tensor>& tensor) const { return operands_.align(tensor); }
  int64_t align(int64_t /*reduction*/) const { return at::Reduction::None; }
  double align(double parameter) const { return parameter; }

 private:
  const LevelPtr& level_;
  detail::PointwiseCall operands_;
};

// The one integer among the arguments behind the operands.
int64_t reduction_among(int64_t reduction) { return reduction; }
template <class... Rest>
int64_t reduction_among(int64_t reduction, const Rest&...) {
  return reduction;
}
template <class First, class... Rest>
int64_t reduction_among(const First&, const Rest&... rest) {
  return reduction_among(rest...);
}

Tensor plain(const LevelPtr& level, const Tensor& tensor) {
  return unwrap_batched(level, tensor).value;
}
std::optional<Tensor> plain(const LevelPtr& level, const std::optional<Tensor>& tensor) {
  return tensor.has_value() ? std::make_optional(plain(level, *tensor)) : std::nullopt;
}
template <class T>
const T& plain(const LevelPtr&, const T& other) {
  return other;
}

template <class Op, class Signature = typename Op::schema>
struct PointwiseLoss;

template <class Op, class... Rest>
struct PointwiseLoss<Op, Tensor(const Tensor&, const Tensor&, Rest...)> {
  static Tensor call(const LevelPtr& level, const Tensor& self, const Tensor& target,
                     Rest... rest) {
    const LossOperands operands(level, self, target, rest...);
    if (!operands.is_batched()) {
      return make_batched(
          level,
          {Op::call(plain(level, self), plain(level, target), plain(level, rest)...), false});
    }
    const Tensor each =
        Op::call(operands.expand(self), operands.expand(target), operands.align(rest)...);
    return make_batched(level, {reduce_each(each, reduction_among(rest...)), true});
  }
};

template <class Op, class Signature = typename Op::schema>
struct PointwiseLossBackward;

template <class Op, class... Rest>
struct PointwiseLossBackward<Op, Tensor(const Tensor&, const Tensor&, const Tensor&, Rest...)> {
  static Tensor call(const LevelPtr& level, const Tensor& grad, const Tensor& self,
                     const Tensor& target, Rest... rest) {
    const LossOperands operands(level, grad, self, target, rest...);
    if (!operands.is_batched()) {
      return make_batched(level, {Op::call(plain(level, grad), plain(level, self),
                                           plain(level, target), plain(level, rest)...),
                                  false});
    }
    const Tensor values = operands.expand(self);
    const Tensor targets = operands.expand(target);
    const auto shape = at::infer_size_symint(values.sym_sizes(), targets.sym_sizes());
    Tensor each = operands.expand(grad);
    if (reduction_among(rest...) == at::Reduction::Mean) {
      c10::SymInt count = 1;
      for (size_t dim = 1; dim < shape.size(); ++dim) {
        count = count * shape[dim];
      }
      each = each.div(at::Scalar(count));
    }
    return make_batched(level, {Op::call(each.expand_symint(shape), values.expand_symint(shape),
                                         targets.expand_symint(shape), operands.align(rest)...),
                                true});
  }
};

template <class... Ops>
void pointwise_loss() {
  ((Rules<Ops>::batching = &PointwiseLoss<Ops>::call, install_kernel<Ops>()), ...);
}

template <class... Ops>
void pointwise_loss_backward() {
  ((Rules<Ops>::batching = &PointwiseLossBackward<Ops>::call, install_kernel<Ops>()), ...);
}

}  // namespace

FUNCTX_RULES(pointwise_losses) {
  pointwise_loss<ops::mse_loss, ops::smooth_l1_loss, ops::huber_loss, ops::soft_margin_loss,
                 ops::binary_cross_entropy, ops::binary_cross_entropy_with_logits>();
  pointwise_loss_backward<ops::mse_loss_backward, ops::smooth_l1_loss_backward,
                          ops::huber_loss_backward, ops::soft_margin_loss_backward,
                          ops::binary_cross_entropy_backward>();
}

}  // namespace functx
