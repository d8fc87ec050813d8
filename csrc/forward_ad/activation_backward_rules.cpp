// The backward operators of activations: linear in the gradient, and with a second derivative where
// the activation is curved. Forward over reverse mode (hessian) comes here.
#include <ATen/ops/where.h>

#include <cmath>

#include "forward_ad/families.h"
#include "reverse_ad/recordable.h"

namespace functx {
namespace {

// The term of the gradient, for operators of the form (grad, saved...).
template <class Op>
constexpr auto of_grad =
    [](auto& t, auto&, auto&, auto&... saved) { return Op::call(t, saved...); };

Tensor tanh_by_output(const Tensor& t, const Tensor&, const Tensor& grad, const Tensor& y) {
  return y.is_complex() ? grad.mul(t.mul(y).conj()).mul(-2) : grad.mul(t).mul(y).mul(-2);
}

Tensor sigmoid_by_output(const Tensor& t, const Tensor&, const Tensor& grad, const Tensor& y) {
  const Tensor slope = ops::rsub_Scalar::call(y.mul(2), 1, 1);
  return y.is_complex() ? grad.mul(t.mul(slope).conj()) : grad.mul(t).mul(slope);
}

Tensor normal_density(const Tensor& x) {
  return x.square().mul(-0.5).exp().mul(0.5 * M_2_SQRTPI * M_SQRT1_2);
}

// Of the approximation 0.5 * x * (1 + tanh(u)), u = c * (x + k * x**3).
Tensor tanh_gelu_curvature(const Tensor& x) {
  constexpr double c = M_SQRT2 * M_2_SQRTPI * 0.5;
  constexpr double k = 0.044715;
  const Tensor square = x.square();
  const Tensor y = square.mul(k).add(1).mul(x).mul(c).tanh();
  const Tensor u1 = square.mul(3 * k).add(1).mul(c);
  const Tensor half_x_u2 = square.mul(3 * k * c);
  const Tensor inner = u1.add(half_x_u2).sub(x.mul(y).mul(u1.square()));
  return ops::tanh_backward::call(inner, y);
}

Tensor gelu_by_input(const Tensor& t, const Tensor&, const Tensor& grad, const Tensor& x,
                     c10::string_view approximate) {
  const Tensor curvature = approximate == "tanh"
                               ? tanh_gelu_curvature(x)
                               : normal_density(x).mul(ops::rsub_Scalar::call(x.square(), 2, 1));
  return grad.mul(t).mul(curvature);
}

Tensor silu_by_input(const Tensor& t, const Tensor&, const Tensor& grad, const Tensor& x) {
  const Tensor y = x.sigmoid();
  const Tensor inner = ops::rsub_Scalar::call(y.mul(2), 1, 1).mul(x).add(2);
  return x.is_complex() ? grad.mul(t.mul(inner).mul(y.sub(y.square())).conj())
                        : ops::sigmoid_backward::call(grad.mul(t).mul(inner), y);
}

Tensor softplus_by_input(const Tensor& t, const Tensor&, const Tensor& grad, const Tensor& x,
                         const at::Scalar& beta, const at::Scalar& threshold) {
  const Tensor scaled = x.mul(beta);
  return zero_unless(scaled.le(threshold),
                     ops::sigmoid_backward::call(grad.mul(t).mul(beta), scaled.sigmoid()));
}

Tensor log_sigmoid_by_input(const Tensor& t, const Tensor&, const Tensor& grad, const Tensor& x,
                            const Tensor&) {
  return ops::sigmoid_backward::call(grad.mul(t), x.sigmoid()).neg();
}

Tensor hardswish_by_input(const Tensor& t, const Tensor&, const Tensor& grad, const Tensor& x) {
  return zero_unless(x.abs().lt(3), grad.mul(t).div(3));
}

// Of log(x / (1 - x)), inside of the bounds if there are any.
Tensor logit_by_input(const Tensor& t, const Tensor&, const Tensor& grad, const Tensor& x,
                      std::optional<double> eps) {
  const Tensor slope = x.sub(x.square()).reciprocal();
  const Tensor term = grad.mul(t).mul(slope.square()).mul(x.mul(2).sub(1));
  return eps.has_value() ? zero_unless(x.ge(*eps).logical_and(x.le(1 - *eps)), term) : term;
}

// With a result for input its slope, on the side that is curved, is input_scale * (y + a constant).
Dual elu_backward(const Dual& grad, const at::Scalar& alpha, const at::Scalar& scale,
                  const at::Scalar& input_scale, bool is_result, const Dual& self_or_result) {
  const Tensor& x = self_or_result.primal;
  Tensor primal = ops::elu_backward::call(grad.primal, alpha, scale, input_scale, is_result, x);
  Tensor tangent;
  if (grad.has_tangent()) {
    tangent = ops::elu_backward::call(grad.tangent, alpha, scale, input_scale, is_result, x);
  }
  if (self_or_result.has_tangent()) {
    Tensor term = grad.primal.mul(self_or_result.tangent).mul(input_scale);
    if (!is_result) {
      term = term.mul(x.mul(input_scale).exp().mul(input_scale).mul(alpha).mul(scale));
    }
    // At the kink, zero: as PyTorch's gradient of the gradient has it.
    tangent = sum_of(std::move(tangent), zero_unless(x.lt(0), term));
  }
  return conform(std::move(tangent), std::move(primal));
}

// Of a * sigmoid(b), for the two halves of the input.
Dual glu_backward(const Dual& grad, const Dual& self, int64_t dim) {
  const Tensor& g = grad.primal;
  Tensor tangent;
  if (grad.has_tangent()) {
    tangent = ops::glu_backward::call(grad.tangent, self.primal, dim);
  }
  if (self.has_tangent()) {
    const auto x = self.primal.chunk(2, dim);
    const auto t = self.tangent.chunk(2, dim);
    const Tensor y = x[1].sigmoid();
    const Tensor by_gate = ops::sigmoid_backward::call(g.mul(t[1]), y);
    const Tensor curved = ops::rsub_Scalar::call(y.mul(2), 1, 1).mul(x[0]).mul(by_gate);
    const Tensor mixed = ops::sigmoid_backward::call(g.mul(t[0]), y).add(curved);
    tangent = sum_of(std::move(tangent), ops::cat::call(std::vector<Tensor>{by_gate, mixed}, dim));
  }
  return {ops::glu_backward::call(g, self.primal, dim), std::move(tangent), false};
}

std::tuple<Dual, Dual> prelu_backward(const Dual& grad, const Dual& self, const Dual& weight) {
  auto [by_self, by_weight] =
      ops::_prelu_kernel_backward::call(grad.primal, self.primal, weight.primal);
  Tensor self_tangent, weight_tangent;
  if (grad.has_tangent()) {
    std::tie(self_tangent, weight_tangent) =
        ops::_prelu_kernel_backward::call(grad.tangent, self.primal, weight.primal);
  }
  const Tensor is_negative = self.primal.lt(0);
  if (weight.has_tangent()) {
    self_tangent =
        sum_of(std::move(self_tangent), zero_unless(is_negative, grad.primal.mul(weight.tangent)));
  }
  if (self.has_tangent()) {
    weight_tangent =
        sum_of(std::move(weight_tangent), zero_unless(is_negative, grad.primal.mul(self.tangent)));
  }
  return {conform(std::move(self_tangent), std::move(by_self)),
          conform(std::move(weight_tangent), std::move(by_weight))};
}

Tensor hardsigmoid_gradient(const Tensor& grad, const Tensor& self) {
  return zero_unless(self.abs().lt(3), grad.div(6));
}

}  // namespace

FUNCTX_RULES(gradients_of_activations) {
  recordable<ops::hardsigmoid_backward, hardsigmoid_gradient>();
}

FUNCTX_RULES(jvp_activation_backward) {
  partials<ops::tanh_backward, of_grad<ops::tanh_backward>, tanh_by_output>();
  partials<ops::sigmoid_backward, of_grad<ops::sigmoid_backward>, sigmoid_by_output>();
  partials<ops::gelu_backward, of_grad<ops::gelu_backward>, gelu_by_input>();
  partials<ops::silu_backward, of_grad<ops::silu_backward>, silu_by_input>();
  partials<ops::softplus_backward, of_grad<ops::softplus_backward>, softplus_by_input>();
  partials<ops::log_sigmoid_backward, of_grad<ops::log_sigmoid_backward>, log_sigmoid_by_input>();
  partials<ops::hardswish_backward, of_grad<ops::hardswish_backward>, hardswish_by_input>();
  partials<ops::logit_backward, of_grad<ops::logit_backward>, logit_by_input>();
  dual_rule<ops::elu_backward, elu_backward>();
  dual_rule<ops::glu_backward, glu_backward>();
  dual_rule<ops::_prelu_kernel_backward, prelu_backward>();
}

// Piecewise linear activations.
FUNCTX_RULES(jvp_piecewise_backward) {
  linear_in_first<ops::threshold_backward, ops::leaky_relu_backward, ops::hardtanh_backward,
                  ops::hardsigmoid_backward, ops::hardshrink_backward, ops::softshrink_backward,
                  ops::native_dropout_backward, ops::rrelu_with_noise_backward>();
}

}  // namespace functx
