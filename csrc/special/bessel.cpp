#include <ATen/Operators.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "special/kernels.h"

namespace functx {
namespace {

namespace ops = at::_ops;

// Up to where the power series is used, and how many terms that takes. Beyond, recurrence upwards
// loses no digits; before, it loses more the higher the order.
struct Extent {
  double until;
  int terms;
};

Extent extent_of_series(double order) { return order < 2 ? Extent{1, 10} : Extent{12, 36}; }

// The sum of (sign * x**2 / 4)**m / (m! Gamma(m + order + 1)), over 2**order.
Tensor series(const Tensor& x, double order, double sign, int terms) {
  const Tensor z = x.square().mul(sign / 4);
  Tensor sum = at::zeros_like(x);
  // Horner's scheme
  for (int m = terms; m > 0; --m) {
    sum = sum.add(1).mul(z).div(m * (m + order));
  }
  return sum.add(1).mul(std::exp2(-order) / std::tgamma(order + 1));
}

// The quotients of two consecutive orders.
struct Consecutive {
  Tensor lower;
  Tensor upper;
};

Consecutive first_orders(const Tensor& x, bool modified, bool is_half) {
  if (is_half) {
    const double scale = std::sqrt(2 / M_PI);
    const Tensor even = modified ? x.cosh() : x.cos();
    const Tensor sinc = (modified ? x.sinh() : x.sin()).div(x);
    const Tensor next = (modified ? even.sub(sinc) : sinc.sub(even)).div(x.square());
    return {sinc.mul(scale), next.mul(scale)};
  }
  return modified
             ? Consecutive{ops::special_modified_bessel_i0::call(x),
                           ops::special_modified_bessel_i1::call(x).div(x)}
             : Consecutive{ops::special_bessel_j0::call(x), ops::special_bessel_j1::call(x).div(x)};
}

// From the lowest orders upwards, for arguments that are not small beside the order.
Tensor recurrence(const Tensor& x, double order, bool modified) {
  const bool is_half = std::floor(order) != order;
  auto [lower, upper] = first_orders(x, modified, is_half);
  double at = is_half ? 0.5 : 0;
  if (order == at) {
    return lower;
  }
  const Tensor square = x.square();
  while (++at < order) {
    const Tensor term = upper.mul(2 * at);
    const Tensor next = (modified ? lower.sub(term) : term.sub(lower)).div(square);
    lower = upper;
    upper = next;
  }
  return upper;
}

}  // namespace

Tensor compute_bessel_quotient(const Tensor& x, double order, bool modified) {
  const Tensor wide = x.to(at::kDouble);
  if (order == 1) {
    const Tensor quotient = recurrence(wide, order, modified);
    return quotient.masked_fill(wide.eq(0), 0.5).to(x.scalar_type());
  }
  const Extent extent = extent_of_series(order);
  const Tensor is_small = wide.abs().le(extent.until);
  const Tensor near =
      series(wide.masked_fill(is_small.logical_not(), 0), order, modified ? 1 : -1, extent.terms);
  return at::where(is_small, near, recurrence(wide, order, modified)).to(x.scalar_type());
}

}  // namespace functx
