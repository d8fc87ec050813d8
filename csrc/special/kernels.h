// What the operators in operators.h compute, on plain tensors and in double precision.
#pragma once

#include "special/operators.h"

namespace functx {

Tensor compute_bessel_quotient(const Tensor& x, double order, bool modified);
Tensor compute_polynomial_derivative(const Tensor& x, const Tensor& n, Polynomial family,
                                     int64_t times);
Tensor compute_airy_ai_prime(const Tensor& x);

}  // namespace functx
