// Ai', with a relative error below 1e-11, of the amplitude where it oscillates.
#include <ATen/Operators.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <array>
#include <cmath>

#include "special/kernels.h"

namespace functx {
namespace {

constexpr double kAiAtZero = 0.355028053887817239260063186004183176;
constexpr double kSlopeAtZero = -0.258819403792806798405183560189203963;

// The power series, whose terms grow beyond the sum as |x| does.
Tensor near_zero(const Tensor& x) {
  constexpr int kTerms = 50;
  const Tensor cube = x.pow(3);
  Tensor even = at::zeros_like(x);
  Tensor odd = at::zeros_like(x);
  for (int k = 3 * kTerms; k > 0; k -= 3) {
    even = even.add(1).mul(cube).div(k * (k + 2));
    odd = odd.add(1).mul(cube).div(k * (k - 2));
  }
  return even.add(1).mul(x.square()).mul(kAiAtZero / 2).add(odd.add(1).mul(kSlopeAtZero));
}

Tensor zeta_of(const Tensor& distance) { return distance.pow(1.5).mul(2.0 / 3); }

// -x / (pi * sqrt(3)) * K(zeta), the modified Bessel function of order 2/3: the integral of
// exp(-zeta * cosh(t)) * cosh(2/3 * t), for which the trapezoidal rule converges exponentially.
Tensor by_integral(const Tensor& x) {
  constexpr double kStep = 0.125;
  constexpr double kEnd = 5.5;
  const Tensor zeta = zeta_of(x);
  Tensor sum = at::zeros_like(x).add(0.5);
  for (double t = kStep; t < kEnd; t += kStep) {
    sum = sum.add(zeta.mul(1 - std::cosh(t)).exp(), std::cosh(2 * t / 3));
  }
  return x.mul(-kStep / (M_PI * std::sqrt(3))).mul(sum).mul(zeta.neg().exp());
}

// The coefficients of the asymptotic expansion in 1 / zeta, up to about where they grow.
constexpr size_t kAsymptoticTerms = 24;

std::array<double, kAsymptoticTerms> asymptotic_coefficients() {
  std::array<double, kAsymptoticTerms> coefficients{1};
  double u = 1;
  for (size_t i = 1; i < kAsymptoticTerms; ++i) {
    const auto k = static_cast<double>(i);
    u *= (6 * k - 5) * (6 * k - 3) * (6 * k - 1) / (216 * k * (2 * k - 1));
    coefficients.at(i) = u * (6 * k + 1) / (1 - 6 * k);
  }
  return coefficients;
}

const auto kCoefficients = asymptotic_coefficients();

Tensor decaying(const Tensor& x) {
  // Beyond this the value is zero, and its factors are zero and infinite.
  const Tensor limited = x.clamp_max(200);
  const Tensor zeta = zeta_of(limited);
  const Tensor minus_inverse = zeta.reciprocal().neg();
  constexpr size_t kTerms = 18;
  Tensor sum = at::zeros_like(x);
  for (size_t k = kTerms; k-- > 0;) {
    sum = sum.mul(minus_inverse).add(kCoefficients.at(k));
  }
  return limited.pow(0.25).mul(zeta.neg().exp()).mul(sum).mul(-0.5 / std::sqrt(M_PI));
}

Tensor oscillating(const Tensor& x) {
  const Tensor distance = x.neg();
  const Tensor zeta = zeta_of(distance);
  const Tensor inverse = zeta.reciprocal();
  const Tensor minus_square = inverse.square().neg();
  Tensor even = at::zeros_like(x);
  Tensor odd = at::zeros_like(x);
  for (size_t k = kAsymptoticTerms; k > 0; k -= 2) {
    odd = odd.mul(minus_square).add(kCoefficients.at(k - 1));
    even = even.mul(minus_square).add(kCoefficients.at(k - 2));
  }
  const Tensor phase = zeta.sub(M_PI / 4);
  return phase.sin()
      .mul(even)
      .sub(phase.cos().mul(odd).mul(inverse))
      .mul(distance.pow(0.25))
      .mul(1 / std::sqrt(M_PI));
}

}  // namespace

Tensor compute_airy_ai_prime(const Tensor& x) {
  constexpr double kOscillatingUntil = -6.75;
  constexpr double kSeriesUntil = 1;
  constexpr double kIntegralUntil = 10;
  const Tensor wide = x.to(at::kDouble);
  // Each formula on arguments that it is for.
  Tensor result = near_zero(wide.clamp(kOscillatingUntil, kSeriesUntil));
  result =
      at::where(wide.lt(kOscillatingUntil), oscillating(wide.clamp_max(kOscillatingUntil)), result);
  result = at::where(wide.gt(kSeriesUntil), by_integral(wide.clamp(kSeriesUntil, kIntegralUntil)),
                     result);
  result = at::where(wide.gt(kIntegralUntil), decaying(wide.clamp_min(kIntegralUntil)), result);
  return result.to(x.scalar_type());
}

}  // namespace functx
