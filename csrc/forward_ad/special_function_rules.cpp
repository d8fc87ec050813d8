// Special functions: of probability, of Bessel, and around the gamma function.
#include <cmath>

#include "forward_ad/families.h"

namespace functx {
namespace {

Dual polygamma(int64_t n, const Dual& self) {
  return {ops::polygamma::call(n, self.primal),
          self.tangent.mul(ops::polygamma::call(n + 1, self.primal))};
}

// The limit at zero is a half.
Tensor i1e(const Tensor& t, const Tensor& x, const Tensor& y) {
  const Tensor slope = ops::special_i0e::call(x).sub(y.mul(x.sgn().add(x.reciprocal())));
  return t.mul(slope.masked_fill(x.eq(0), 0.5));
}

Tensor i0e(const Tensor& t, const Tensor& x, const Tensor& y) {
  return t.mul(ops::special_i1e::call(x).sub(x.sgn().mul(y)));
}

// x * log(y) is zero where x is, whatever y is.
Tensor by_factor(const Tensor& t, const Tensor&, const Tensor& x, const Tensor& y) {
  return t.xlogy(y).masked_fill(x.eq(0).logical_and(y.le(0)), 0);
}

Tensor by_factor_of_constant(const Tensor& t, const Tensor& x, const Tensor&, const at::Scalar& y) {
  const Tensor term = t.xlogy(y);
  return y.toDouble() > 0 ? term : term.masked_fill(x.eq(0), 0);
}

Tensor by_factor_1p(const Tensor& t, const Tensor&, const Tensor& x, const Tensor& y) {
  return ops::special_xlog1py::call(t, y).masked_fill(x.eq(0).logical_and(y.le(-1)), 0);
}

// Constant where the argument is clamped to [eps, 1 - eps].
Tensor logit(const Tensor& t, const Tensor& x, const Tensor&, const std::optional<double>& eps) {
  const Tensor slope = t.div(x.sub(x.square()));
  return eps.has_value() ? zero_unless(x.ge(*eps).logical_and(x.le(1 - *eps)), slope) : slope;
}

// The derivative of the regularized incomplete gamma function by its second argument.
Tensor gamma_density(const Tensor& order, const Tensor& x) {
  return order.sub(1).xlogy(x).sub(x).sub(order.lgamma()).exp();
}

// Nobody has a formula for these.
template <class Op>
constexpr auto by_order = [](const auto&...) -> Tensor {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "functx.jvp: ", Op::name,
                              " has no derivative by its first argument. Detach it if it is a "
                              "constant.");
};

// Hurwitz' zeta function, the sum of 1 / (k + q)**s.
Dual zeta_of_constant(const at::Scalar& s, const Dual& q) {
  const at::Scalar next = s.toDouble() + 1;
  const Tensor slope = ops::special_zeta_self_scalar::call(next, q.primal).mul(s).neg();
  return {ops::special_zeta_self_scalar::call(s, q.primal), q.tangent.mul(slope)};
}

}  // namespace

FUNCTX_RULES(jvp_incomplete_gamma) {
  partials<ops::igamma, by_order<ops::igamma>,
           [](auto& t, auto&, auto& order, auto& x) { return t.mul(gamma_density(order, x)); }>();
  partials<ops::igammac, by_order<ops::igammac>, [](auto& t, auto&, auto& order, auto& x) {
    return t.mul(gamma_density(order, x)).neg();
  }>();
}

FUNCTX_RULES(jvp_zeta) {
  partials<ops::special_zeta, by_order<ops::special_zeta>, [](auto& t, auto&, auto& s, auto& q) {
    return t.mul(s).mul(ops::special_zeta::call(s.add(1), q)).neg();
  }>();
  partials<ops::special_zeta_other_scalar, by_order<ops::special_zeta_other_scalar>>();
  dual_rule<ops::special_zeta_self_scalar, zeta_of_constant>();
}

FUNCTX_RULES(jvp_gamma) {
  elementwise<ops::lgamma, [](auto& t, auto& x, auto&) { return t.mul(x.digamma()); }>();
  elementwise<ops::digamma, [](auto& t, auto& x, auto&) { return t.mul(x.polygamma(1)); }>();
  dual_rule<ops::polygamma, polygamma>();
}

FUNCTX_RULES(jvp_bessel) {
  elementwise<ops::i0, [](auto& t, auto& x, auto&) { return t.mul(ops::special_i1::call(x)); }>();
  elementwise<ops::special_i0e, i0e>();
  elementwise<ops::special_i1e, i1e>();
}

FUNCTX_RULES(jvp_probability) {
  elementwise<ops::erfinv, [](auto& t, auto&, auto& y) {
    return t.mul(y.square().exp()).mul(std::sqrt(M_PI) / 2);
  }>();
  elementwise<ops::special_erfcx, [](auto& t, auto& x, auto& y) {
    return t.mul(x.mul(y).mul(2).sub(2 / std::sqrt(M_PI)));
  }>();
  elementwise<ops::special_ndtri, [](auto& t, auto&, auto& y) {
    return t.mul(y.square().div(2).exp()).mul(std::sqrt(2 * M_PI));
  }>();
  elementwise<ops::special_log_ndtr, [](auto& t, auto& x, auto&) {
    return t.div(ops::special_erfcx::call(x.mul(-M_SQRT1_2))).mul(std::sqrt(2 / M_PI));
  }>();
  elementwise<ops::special_entr,
              [](auto& t, auto& x, auto&) { return t.mul(x.log().add(1)).neg(); }>();
  elementwise<ops::logit, logit>();
}

FUNCTX_RULES(jvp_x_log_y) {
  partials<ops::xlogy_Tensor, by_factor,
           [](auto& t, auto&, auto& x, auto& y) { return t.mul(x).div(y); }>();
  elementwise<ops::xlogy_Scalar_Other, by_factor_of_constant>();
  dual_rule<ops::xlogy_Scalar_Self, [](const at::Scalar& x, const Dual& y) {
    return Dual{ops::xlogy_Scalar_Self::call(x, y.primal), y.tangent.mul(x).div(y.primal)};
  }>();
  partials<ops::special_xlog1py, by_factor_1p,
           [](auto& t, auto&, auto& x, auto& y) { return t.mul(x).div(y.add(1)); }>();
}

}  // namespace functx
