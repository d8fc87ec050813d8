// Operators of functx's own, which derivatives of special functions lead to and PyTorch does not
// have. Each is closed under differentiation, so that there are derivatives of all orders.
#pragma once

#include "core/wrapper.h"

namespace functx {

// J(x) / x**order, or I(x) / x**order if `modified`, of the Bessel functions of `order`, a multiple
// of 1/2. An entire function: that of order 3/2 is the one behind the spherical Bessel functions.
Tensor bessel_quotient(const Tensor& x, double order, bool modified);

enum class Polynomial : uint8_t {
  ChebyshevT,
  ChebyshevU,
  ChebyshevV,
  ChebyshevW,
  ShiftedChebyshevT,
  ShiftedChebyshevU,
  ShiftedChebyshevV,
  ShiftedChebyshevW,
  HermiteH,
  HermiteHe,
  LaguerreL,
  LegendreP,
};

// The derivative, `times` taken, of the polynomials of degrees `n`.
Tensor polynomial_derivative(const Tensor& x, const Tensor& n, Polynomial family, int64_t times);

// The derivative of the Airy function Ai.
Tensor airy_ai_prime(const Tensor& x);

}  // namespace functx
