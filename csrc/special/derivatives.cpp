// Special functions that PyTorch takes for constants. Their derivatives are functions of the same
// families.
#include <ATen/ops/scalar_tensor.h>

#include <cmath>

#include "special/derivative.h"
#include "special/operators.h"

namespace functx {
namespace {

// Of a function that is -inf or inf at zero and defined on one side of it.
Tensor infinite_at_zero(const Tensor& slope, const Tensor& x, double sign) {
  return slope.masked_fill(x.eq(0), sign * INFINITY);
}

// The degree of all elements. No level is to make it a wrapper of its own, which a pullback would
// return.
Tensor degree(const Tensor& x, const at::Scalar& n) {
  const HideFrom all_levels;
  return at::scalar_tensor(n, x.options().dtype(at::kLong));
}

template <class ByTensors, class ByDegree, class ByArgument, Polynomial family>
void polynomial() {
  derivative<ByTensors, [](auto& x, auto& n) { return polynomial_derivative(x, n, family, 1); }>();
  derivative<ByDegree,
             [](auto& x, auto& n) { return polynomial_derivative(x, degree(x, n), family, 1); }>();
  // Constant in steps: the degree is rounded towards zero.
  nondifferentiable<ByArgument>();
}

}  // namespace

FUNCTX_RULES(bessel_functions) {
  derivative<ops::special_bessel_j0,
             [](auto& x) { return ops::special_bessel_j1::call(x).neg(); }>();
  derivative<ops::special_bessel_j1, [](auto& x) {
    return ops::special_bessel_j0::call(x).sub(bessel_quotient(x, 1, /*modified=*/false));
  }>();
  derivative<ops::special_bessel_y0,
             [](auto& x) { return ops::special_bessel_y1::call(x).neg(); }>();
  derivative<ops::special_bessel_y1, [](auto& x) {
    const Tensor slope =
        ops::special_bessel_y0::call(x).sub(ops::special_bessel_y1::call(x).div(x));
    return infinite_at_zero(slope, x, 1);
  }>();
  derivative<ops::special_spherical_bessel_j0, [](auto& x) {
    return x.mul(bessel_quotient(x, 1.5, /*modified=*/false)).mul(-std::sqrt(M_PI / 2));
  }>();
}

FUNCTX_RULES(modified_bessel_functions) {
  derivative<ops::special_modified_bessel_i0,
             [](auto& x) { return ops::special_modified_bessel_i1::call(x); }>();
  derivative<ops::special_modified_bessel_i1, [](auto& x) {
    return ops::special_modified_bessel_i0::call(x).sub(bessel_quotient(x, 1, /*modified=*/true));
  }>();
  // PyTorch has a formula for this one, of which the third derivative at zero is zero.
  derivative<ops::special_i1, [](auto& x) {
    return ops::i0::call(x).sub(bessel_quotient(x, 1, /*modified=*/true));
  }>();
  derivative<ops::special_modified_bessel_k0,
             [](auto& x) { return ops::special_modified_bessel_k1::call(x).neg(); }>();
  derivative<ops::special_modified_bessel_k1, [](auto& x) {
    return ops::special_modified_bessel_k0::call(x)
        .add(ops::special_modified_bessel_k1::call(x).div(x))
        .neg();
  }>();
  // exp(x) times those before
  derivative<ops::special_scaled_modified_bessel_k0, [](auto& x) {
    const Tensor slope = ops::special_scaled_modified_bessel_k0::call(x).sub(
        ops::special_scaled_modified_bessel_k1::call(x));
    return infinite_at_zero(slope, x, -1);
  }>();
  derivative<ops::special_scaled_modified_bessel_k1, [](auto& x) {
    const Tensor k1 = ops::special_scaled_modified_bessel_k1::call(x);
    const Tensor slope = k1.sub(ops::special_scaled_modified_bessel_k0::call(x)).sub(k1.div(x));
    return infinite_at_zero(slope, x, -1);
  }>();
}

FUNCTX_RULES(airy_function) {
  derivative<ops::special_airy_ai, [](auto& x) { return airy_ai_prime(x); }>();
}

#define FUNCTX_POLYNOMIAL(name, family)                                                           \
  polynomial<ops::special_##name, ops::special_##name##_n_scalar, ops::special_##name##_x_scalar, \
             Polynomial::family>()

FUNCTX_RULES(orthogonal_polynomials) {
  FUNCTX_POLYNOMIAL(chebyshev_polynomial_t, ChebyshevT);
  FUNCTX_POLYNOMIAL(chebyshev_polynomial_u, ChebyshevU);
  FUNCTX_POLYNOMIAL(chebyshev_polynomial_v, ChebyshevV);
  FUNCTX_POLYNOMIAL(chebyshev_polynomial_w, ChebyshevW);
  FUNCTX_POLYNOMIAL(shifted_chebyshev_polynomial_t, ShiftedChebyshevT);
  FUNCTX_POLYNOMIAL(shifted_chebyshev_polynomial_u, ShiftedChebyshevU);
  FUNCTX_POLYNOMIAL(shifted_chebyshev_polynomial_v, ShiftedChebyshevV);
  FUNCTX_POLYNOMIAL(shifted_chebyshev_polynomial_w, ShiftedChebyshevW);
  FUNCTX_POLYNOMIAL(hermite_polynomial_h, HermiteH);
  FUNCTX_POLYNOMIAL(hermite_polynomial_he, HermiteHe);
  FUNCTX_POLYNOMIAL(laguerre_polynomial_l, LaguerreL);
  FUNCTX_POLYNOMIAL(legendre_polynomial_p, LegendreP);
}

#undef FUNCTX_POLYNOMIAL

}  // namespace functx
