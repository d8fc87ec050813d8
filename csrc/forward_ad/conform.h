// What tangents have to look like, and arithmetic of tangents that may be undefined, that is zero.
#pragma once

#include "forward_ad/dual_tensor.h"

namespace functx {

// A dual of `primal` whose tangent was computed from operands that may have been broadcast or
// promoted on the way to it, or is that of an operand itself.
Dual conform(Tensor tangent, Tensor primal);

// Integers and booleans have no tangent.
bool is_differentiable(const Tensor& tensor);

Tensor sum_of(Tensor left, Tensor right);

Tensor tangent_or_zeros(const Dual& dual);

// Zero where the denominator is. A derivative of it never divides by zero either.
Tensor quotient_or_zero(const Tensor& numerator, const Tensor& denominator);

// `tangent` where `condition` holds, zero elsewhere.
Tensor zero_unless(const Tensor& condition, const Tensor& tangent);

// Real part of the product with the conjugate: what a real function of complex numbers is made of.
Tensor real_inner(const Tensor& x, const Tensor& tangent);

}  // namespace functx
