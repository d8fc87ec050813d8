// Elementwise functions: the tangent is the derivative at the primal times the tangent. Formulas
// hold for complex arguments too, where the function is holomorphic.
#include <ATen/ops/imag.h>
#include <ATen/ops/real.h>

#include <cmath>

#include "forward_ad/families.h"

namespace functx {
namespace {

Tensor one_minus(const Tensor& x) { return ops::rsub_Scalar::call(x, 1, 1); }

constexpr auto pass = [](auto& t, auto&...) { return t; };

// Of a function with values on the unit circle only what is at right angles to the value counts.
Tensor sgn(const Tensor& t, const Tensor& x, const Tensor& y) {
  if (!x.is_complex()) {
    return {};
  }
  return quotient_or_zero(t.sub(y.mul(real_inner(y, t))), x.abs());
}

Tensor angle(const Tensor& t, const Tensor& x, const Tensor&) {
  if (!x.is_complex()) {
    return {};
  }
  return quotient_or_zero(at::imag(t.mul(x.conj())), real_inner(x, x));
}

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
  elementwise<ops::acosh,
              [](auto& t, auto& x, auto&) { return t.mul(x.square().sub(1).rsqrt()); }>();
  elementwise<ops::asinh,
              [](auto& t, auto& x, auto&) { return t.mul(x.square().add(1).rsqrt()); }>();
  elementwise<ops::atanh, [](auto& t, auto& x, auto&) { return t.div(one_minus(x.square())); }>();
  elementwise<ops::sgn, sgn>();
  elementwise<ops::angle, angle>();
  elementwise<ops::abs, [](auto& t, auto& x, auto&) {
    return x.is_complex() ? at::real(t.mul(x.sgn().conj())) : t.mul(x.sgn());
  }>();
}

FUNCTX_RULES(jvp_scalar_arithmetic) {
  elementwise<ops::mul_Scalar, [](auto& t, auto&, auto&, auto& factor) { return t.mul(factor); }>();
  elementwise<ops::div_Scalar,
              [](auto& t, auto&, auto&, auto& divisor) { return t.div(divisor); }>();
  elementwise<ops::rsub_Scalar, [](auto& t, auto&, auto&, auto&, auto& alpha) {
    return alpha.equal(1) ? t.neg() : t.mul(alpha).neg();
  }>();
  elementwise<ops::div_Scalar_mode, [](auto& t, auto&, auto&, auto& divisor, auto& mode) {
    return mode.has_value() ? Tensor() : t.div(divisor);
  }>();
  elementwise<ops::remainder_Scalar, pass>();
  elementwise<ops::fmod_Scalar, pass>();
  elementwise<ops::frac, pass>();
  elementwise<ops::deg2rad, [](auto& t, auto&, auto&) { return t.deg2rad(); }>();
  elementwise<ops::rad2deg, [](auto& t, auto&, auto&) { return t.rad2deg(); }>();
}

FUNCTX_RULES(jvp_clamping) {
  elementwise<ops::clamp, [](auto& t, auto& x, auto&, auto& min, auto& max) {
    if (!min.has_value()) {
      return zero_unless(x.le(*max), t);
    }
    return zero_unless(max.has_value() ? x.ge(*min).logical_and(x.le(*max)) : x.ge(*min), t);
  }>();
  elementwise<ops::clamp_min,
              [](auto& t, auto& x, auto&, auto& min) { return zero_unless(x.ge(min), t); }>();
  elementwise<ops::clamp_max,
              [](auto& t, auto& x, auto&, auto& max) { return zero_unless(x.le(max), t); }>();
  elementwise<ops::nan_to_num,
              [](auto& t, auto& x, auto&, auto&...) { return zero_unless(x.isfinite(), t); }>();
}

}  // namespace functx
