// Elementwise functions: the tangent is the derivative at the primal times the tangent. Formulas
// hold for complex arguments too, where the function is holomorphic.
#include <ATen/ops/real.h>

#include "forward_ad/families.h"

namespace functx {
namespace {

// An operator of the form (grad, saved, ...) that multiplies by a real derivative in one pass,
// which serves forward mode as well.
template <class Backward>
constexpr auto by_backward_of_input =
    [](const Tensor& t, const Tensor& x, const Tensor&, const auto&... rest) {
      return Backward::call(t, x, rest...);
    };

Tensor one_minus(const Tensor& x) { return ops::rsub_Scalar::call(x, 1, 1); }

Tensor two_over_sqrt_pi_exp(const Tensor& t, const Tensor& x) {
  return t.mul(x.square().neg().exp()).mul(1.1283791670955126);
}

}  // namespace

FUNCTX_RULES(jvp_elementwise) {
  elementwise<ops::sin, [](auto& t, auto& x, auto&) { return t.mul(x.cos()); }>();
  elementwise<ops::cos, [](auto& t, auto& x, auto&) { return t.mul(x.sin()).neg(); }>();
  elementwise<ops::tan, [](auto& t, auto&, auto& y) { return t.mul(y.square().add(1)); }>();
  elementwise<ops::sinh, [](auto& t, auto& x, auto&) { return t.mul(x.cosh()); }>();
  elementwise<ops::cosh, [](auto& t, auto& x, auto&) { return t.mul(x.sinh()); }>();
  elementwise<ops::tanh, [](auto& t, auto&, auto& y) {
    return y.is_complex() ? t.mul(one_minus(y.square())) : ops::tanh_backward::call(t, y);
  }>();
  elementwise<ops::sigmoid, [](auto& t, auto&, auto& y) {
    return y.is_complex() ? t.mul(y.mul(one_minus(y))) : ops::sigmoid_backward::call(t, y);
  }>();
  elementwise<ops::asin,
              [](auto& t, auto& x, auto&) { return t.mul(one_minus(x.square()).rsqrt()); }>();
  elementwise<ops::acos,
              [](auto& t, auto& x, auto&) { return t.mul(one_minus(x.square()).rsqrt()).neg(); }>();
  elementwise<ops::atan, [](auto& t, auto& x, auto&) { return t.div(x.square().add(1)); }>();
  elementwise<ops::exp, [](auto& t, auto&, auto& y) { return t.mul(y); }>();
  elementwise<ops::exp2,
              [](auto& t, auto&, auto& y) { return t.mul(y).mul(0.6931471805599453); }>();
  elementwise<ops::expm1, [](auto& t, auto&, auto& y) { return t.mul(y.add(1)); }>();
  elementwise<ops::log, [](auto& t, auto& x, auto&) { return t.div(x); }>();
  elementwise<ops::log2,
              [](auto& t, auto& x, auto&) { return t.div(x.mul(0.6931471805599453)); }>();
  elementwise<ops::log10,
              [](auto& t, auto& x, auto&) { return t.div(x.mul(2.302585092994046)); }>();
  elementwise<ops::log1p, [](auto& t, auto& x, auto&) { return t.div(x.add(1)); }>();
  elementwise<ops::sqrt, [](auto& t, auto&, auto& y) { return t.div(y.mul(2)); }>();
  elementwise<ops::rsqrt, [](auto& t, auto&, auto& y) { return t.mul(y.pow(3)).mul(-0.5); }>();
  elementwise<ops::reciprocal, [](auto& t, auto&, auto& y) { return t.mul(y.square()).neg(); }>();
  elementwise<ops::erf, [](auto& t, auto& x, auto&) { return two_over_sqrt_pi_exp(t, x); }>();
  elementwise<ops::erfc,
              [](auto& t, auto& x, auto&) { return two_over_sqrt_pi_exp(t, x).neg(); }>();
  elementwise<ops::abs, [](auto& t, auto& x, auto&) {
    return x.is_complex() ? at::real(t.mul(x.sgn().conj())) : t.mul(x.sgn());
  }>();
}

FUNCTX_RULES(jvp_activation) {
  elementwise<ops::relu,
              [](auto& t, auto&, auto& y) { return ops::threshold_backward::call(t, y, 0); }>();
  elementwise<ops::threshold, [](auto& t, auto& x, auto&, auto& threshold, auto&) {
    return ops::threshold_backward::call(t, x, threshold);
  }>();
  elementwise<ops::gelu, by_backward_of_input<ops::gelu_backward>>();
  elementwise<ops::silu, by_backward_of_input<ops::silu_backward>>();
  elementwise<ops::mish, by_backward_of_input<ops::mish_backward>>();
  elementwise<ops::softplus, by_backward_of_input<ops::softplus_backward>>();
  elementwise<ops::softshrink, by_backward_of_input<ops::softshrink_backward>>();
  elementwise<ops::hardshrink, by_backward_of_input<ops::hardshrink_backward>>();
  elementwise<ops::hardtanh, by_backward_of_input<ops::hardtanh_backward>>();
  elementwise<ops::hardsigmoid, by_backward_of_input<ops::hardsigmoid_backward>>();
  elementwise<ops::hardswish, by_backward_of_input<ops::hardswish_backward>>();
  elementwise<ops::leaky_relu, [](auto& t, auto& x, auto&, auto& slope) {
    return ops::leaky_relu_backward::call(t, x, slope, false);
  }>();
  elementwise<ops::elu, [](auto& t, auto& x, auto&, auto& alpha, auto& scale, auto& input_scale) {
    return ops::elu_backward::call(t, alpha, scale, input_scale, false, x);
  }>();
}

FUNCTX_RULES(jvp_scalar_arithmetic) {
  elementwise<ops::pow_Tensor_Scalar, [](auto& t, auto& x, auto&, auto& exponent) {
    return exponent.equal(2) ? t.mul(x).mul(2)
                             : t.mul(x.pow(exponent.toDouble() - 1)).mul(exponent);
  }>();
  elementwise<ops::mul_Scalar, [](auto& t, auto&, auto&, auto& factor) { return t.mul(factor); }>();
  elementwise<ops::div_Scalar,
              [](auto& t, auto&, auto&, auto& divisor) { return t.div(divisor); }>();
  elementwise<ops::rsub_Scalar,
              [](auto& t, auto&, auto&, auto&, auto& alpha) { return t.mul(alpha).neg(); }>();
}

FUNCTX_RULES(jvp_piecewise_constant) {
  nondifferentiable<ops::sign, ops::ceil, ops::floor, ops::round, ops::trunc, ops::logical_not,
                    ops::bitwise_not, ops::isnan>();
  nondifferentiable<ops::eq_Tensor, ops::ne_Tensor, ops::lt_Tensor, ops::le_Tensor, ops::gt_Tensor,
                    ops::ge_Tensor, ops::eq_Scalar, ops::ne_Scalar, ops::lt_Scalar, ops::le_Scalar,
                    ops::gt_Scalar, ops::ge_Scalar, ops::logical_and, ops::logical_or,
                    ops::logical_xor, ops::argmax, ops::argmin, ops::floor_divide>();
}

}  // namespace functx
