// Losses: elementwise in a prediction and a target, then reduced.
#include <ATen/ops/broadcast_tensors.h>

#include "forward_ad/families.h"
#include "forward_ad/loss_reduction.h"

namespace functx {
namespace {

// What the gradient of the reduced loss is multiplied by for each term.
Tensor spread(const Tensor& grad, int64_t reduction, const Tensor& terms) {
  if (reduction != at::Reduction::Mean) {
    return grad;
  }
  return grad.div(terms.sym_numel().guard_int(__FILE__, __LINE__));
}

// ---- losses of the difference of prediction and target ----

Tensor difference(const Dual& self, const Dual& target) {
  if (!target.has_tangent()) {
    return self.tangent;
  }
  return self.has_tangent() ? self.tangent.sub(target.tangent) : target.tangent.neg();
}

template <class Loss, class Backward, class... Rest>
Dual difference_loss(const Dual& self, const Dual& target, int64_t reduction, Rest... rest) {
  Tensor primal = Loss::call(self.primal, target.primal, reduction, rest...);
  const auto all = at::broadcast_tensors({self.primal, target.primal, difference(self, target)});
  const Tensor terms = Backward::call(all[2], all[0], all[1], no_reduction, rest...);
  return conform(reduce_loss(terms, reduction), std::move(primal));
}

// second_derivative(distance, rest...) of the loss.
template <class Backward, auto second_derivative, class... Rest>
Dual difference_loss_backward(const Dual& grad, const Dual& self, const Dual& target,
                              int64_t reduction, Rest... rest) {
  Tensor primal = Backward::call(grad.primal, self.primal, target.primal, reduction, rest...);
  Tensor tangent;
  if (grad.has_tangent()) {
    tangent = Backward::call(grad.tangent, self.primal, target.primal, reduction, rest...);
  }
  if (self.has_tangent() || target.has_tangent()) {
    const Tensor scale = spread(grad.primal, reduction, primal);
    tangent =
        sum_of(std::move(tangent), second_derivative(difference(self, target).mul(scale),
                                                     self.primal.sub(target.primal), rest...));
  }
  return conform(std::move(tangent), std::move(primal));
}

constexpr auto mse_curvature = [](const Tensor& t, const Tensor&) { return t.mul(2); };
constexpr auto smooth_l1_curvature = [](const Tensor& t, const Tensor& distance, double beta) {
  return zero_unless(distance.abs().lt(beta), t.div(beta));
};
constexpr auto huber_curvature = [](const Tensor& t, const Tensor& distance, double delta) {
  return zero_unless(distance.abs().le(delta), t);
};

// log(1 + exp(-target * x)), in which both are the same.
Dual soft_margin_loss(const Dual& self, const Dual& target, int64_t reduction) {
  Tensor change;
  if (self.has_tangent()) {
    change = self.tangent.mul(target.primal);
  }
  if (target.has_tangent()) {
    change = sum_of(std::move(change), target.tangent.mul(self.primal));
  }
  const Tensor terms = change.mul(self.primal.mul(target.primal).neg().sigmoid()).neg();
  return conform(reduce_loss(terms, reduction),
                 ops::soft_margin_loss::call(self.primal, target.primal, reduction));
}

// Its slope is -target * sigmoid(-target * x).
Dual soft_margin_loss_backward(const Dual& grad, const Dual& self, const Dual& target,
                               int64_t reduction) {
  const Tensor &x = self.primal, &y = target.primal;
  const auto backward = [&](const Tensor& g) {
    return ops::soft_margin_loss_backward::call(g, x, y, reduction);
  };
  Tensor primal = backward(grad.primal);
  Tensor tangent = grad.has_tangent() ? backward(grad.tangent) : Tensor();
  if (self.has_tangent() || target.has_tangent()) {
    const Tensor share = x.mul(y).neg().sigmoid();
    Tensor change;
    if (self.has_tangent()) {
      change = self.tangent.mul(y.square());
    }
    if (target.has_tangent()) {
      change = sum_of(std::move(change), target.tangent.mul(x.mul(y)));
    }
    Tensor curved = change.mul(share.sub(share.square()));
    if (target.has_tangent()) {
      curved = curved.sub(target.tangent.mul(share));
    }
    tangent = sum_of(std::move(tangent), curved.mul(spread(grad.primal, reduction, primal)));
  }
  return conform(std::move(tangent), std::move(primal));
}

// ---- cross entropy ----

std::optional<Tensor> optional(const Tensor& tensor) {
  return tensor.defined() ? std::make_optional(tensor) : std::nullopt;
}

// A mean is weighted by the weights of the targets, whose `total` the operator gives as well.
template <class Op>
std::tuple<Dual, Tensor> nll_loss(const Dual& self, const Dual& target, const Dual& weight,
                                  int64_t reduction, const c10::SymInt& ignore_index) {
  const auto loss = [&](const Tensor& scores, const Tensor& weights, int64_t reduced) {
    return Op::call(scores, target.primal, optional(weights), reduced, ignore_index);
  };
  auto [primal, total] = loss(self.primal, weight.primal, reduction);
  Tensor tangent;
  if (self.has_tangent()) {
    tangent = std::get<0>(loss(self.tangent, weight.primal, reduction));
  }
  if (weight.has_tangent()) {
    const bool is_mean = reduction == at::Reduction::Mean;
    const int64_t reduced = is_mean ? int64_t{at::Reduction::Sum} : reduction;
    auto [term, change] = loss(self.primal, weight.tangent, reduced);
    tangent = sum_of(std::move(tangent), is_mean ? term.sub(primal.mul(change)).div(total) : term);
  }
  return {conform(std::move(tangent), std::move(primal)), std::move(total)};
}

// Logarithms are cut off at -100, as in the loss itself.
Tensor bounded_log(const Tensor& x) { return x.log().clamp_min(-100); }

Dual binary_cross_entropy(const Dual& self, const Dual& target, const Dual& weight,
                          int64_t reduction) {
  const Tensor& x = self.primal;
  Tensor terms;
  if (self.has_tangent()) {
    terms = ops::binary_cross_entropy_backward::call(self.tangent, x, target.primal,
                                                     optional(weight.primal), no_reduction);
  }
  if (target.has_tangent()) {
    const Tensor slope = bounded_log(ops::rsub_Scalar::call(x, 1, 1)).sub(bounded_log(x));
    const Tensor term = target.tangent.mul(slope);
    terms = sum_of(std::move(terms), weight.defined() ? term.mul(weight.primal) : term);
  }
  if (weight.has_tangent()) {
    const Tensor loss =
        ops::binary_cross_entropy::call(x, target.primal, std::nullopt, no_reduction);
    terms = sum_of(std::move(terms), loss.mul(weight.tangent));
  }
  return conform(
      reduce_loss(terms, reduction),
      ops::binary_cross_entropy::call(x, target.primal, optional(weight.primal), reduction));
}

// (x - target) / (x - x**2), times the weight.
Dual binary_cross_entropy_backward(const Dual& grad, const Dual& self, const Dual& target,
                                   const Dual& weight, int64_t reduction) {
  TORCH_CHECK(!weight.has_tangent(),
              "functx.jvp: binary_cross_entropy_backward has no derivative by weight. Ask for "
              "reduction='none' and multiply by the weight instead.");
  const auto backward = [&](const Tensor& g) {
    return ops::binary_cross_entropy_backward::call(g, self.primal, target.primal,
                                                    optional(weight.primal), reduction);
  };
  Tensor primal = backward(grad.primal);
  Tensor tangent;
  if (grad.has_tangent()) {
    tangent = backward(grad.tangent);
  }
  if (self.has_tangent() || target.has_tangent()) {
    const Tensor& x = self.primal;
    const Tensor variance = x.sub(x.square());
    Tensor change;
    if (self.has_tangent()) {
      const Tensor square = x.square().sub(x.mul(target.primal).mul(2)).add(target.primal);
      change = self.tangent.mul(square).div(variance.square());
    }
    if (target.has_tangent()) {
      change = sum_of(std::move(change), target.tangent.div(variance).neg());
    }
    change = change.mul(spread(grad.primal, reduction, primal));
    tangent = sum_of(std::move(tangent), weight.defined() ? change.mul(weight.primal) : change);
  }
  return conform(std::move(tangent), std::move(primal));
}

Tensor softplus_of(const Tensor& x) { return ops::softplus::call(x, 1, 20); }

// weight * ((1 - target) * x + (1 + (pos_weight - 1) * target) * softplus(-x))
Dual binary_cross_entropy_with_logits(const Dual& self, const Dual& target, const Dual& weight,
                                      const Dual& pos_weight, int64_t reduction) {
  const Tensor &x = self.primal, &z = target.primal;
  Tensor terms;
  if (self.has_tangent()) {
    const Tensor slope = pos_weight.defined()
                             ? ops::rsub_Scalar::call(z, 1, 1).sub(
                                   pos_weight.primal.sub(1).mul(z).add(1).mul(x.neg().sigmoid()))
                             : x.sigmoid().sub(z);
    terms = self.tangent.mul(slope);
  }
  if (target.has_tangent()) {
    const Tensor slope =
        pos_weight.defined() ? pos_weight.primal.sub(1).mul(softplus_of(x.neg())).sub(x) : x.neg();
    terms = sum_of(std::move(terms), target.tangent.mul(slope));
  }
  if (pos_weight.has_tangent()) {
    terms = sum_of(std::move(terms), pos_weight.tangent.mul(z).mul(softplus_of(x.neg())));
  }
  if (terms.defined() && weight.defined()) {
    terms = terms.mul(weight.primal);
  }
  const auto loss = [&](const Tensor& w, int64_t reduced) {
    return ops::binary_cross_entropy_with_logits::call(x, z, optional(w),
                                                       optional(pos_weight.primal), reduced);
  };
  if (weight.has_tangent()) {
    terms = sum_of(std::move(terms), loss(Tensor(), no_reduction).mul(weight.tangent));
  }
  Tensor primal = loss(weight.primal, reduction);
  return conform(reduce_loss(terms, reduction), std::move(primal));
}

}  // namespace

FUNCTX_RULES(jvp_difference_losses) {
  dual_rule<ops::mse_loss, difference_loss<ops::mse_loss, ops::mse_loss_backward>>();
  dual_rule<ops::smooth_l1_loss,
            difference_loss<ops::smooth_l1_loss, ops::smooth_l1_loss_backward, double>>();
  dual_rule<ops::huber_loss, difference_loss<ops::huber_loss, ops::huber_loss_backward, double>>();
  dual_rule<ops::mse_loss_backward,
            difference_loss_backward<ops::mse_loss_backward, mse_curvature>>();
  dual_rule<ops::smooth_l1_loss_backward,
            difference_loss_backward<ops::smooth_l1_loss_backward, smooth_l1_curvature, double>>();
  dual_rule<ops::huber_loss_backward,
            difference_loss_backward<ops::huber_loss_backward, huber_curvature, double>>();
}

FUNCTX_RULES(jvp_soft_margin) {
  dual_rule<ops::soft_margin_loss, soft_margin_loss>();
  dual_rule<ops::soft_margin_loss_backward, soft_margin_loss_backward>();
}

FUNCTX_RULES(jvp_cross_entropy) {
  dual_rule<ops::nll_loss_forward, nll_loss<ops::nll_loss_forward>>();
  dual_rule<ops::nll_loss2d_forward, nll_loss<ops::nll_loss2d_forward>>();
  linear_in_first<ops::nll_loss_backward, ops::nll_loss2d_backward>();
  dual_rule<ops::binary_cross_entropy, binary_cross_entropy>();
  dual_rule<ops::binary_cross_entropy_backward, binary_cross_entropy_backward>();
  dual_rule<ops::binary_cross_entropy_with_logits, binary_cross_entropy_with_logits>();
}

}  // namespace functx
