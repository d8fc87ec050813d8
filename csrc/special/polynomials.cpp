// Derivatives of orthogonal polynomials, by the derivative of the recurrence that defines them: of
//   p[m + 1] = (slope * x + offset) * p[m] - back * p[m - 1]
// the one of p[m + 1], taken k times, has k * slope times the one of p[m], taken k - 1 times, in
// it.
#include <ATen/Operators.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/result_type.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <utility>
#include <vector>

#include "special/kernels.h"

namespace functx {
namespace {

struct Step {
  double slope;
  double offset;
  double back;
};

// From degree m to m + 1.
Step step(Polynomial family, double m) {
  const bool is_first = m == 0;
  switch (family) {
    case Polynomial::ChebyshevT:
      return {is_first ? 1.0 : 2.0, 0, 1};
    case Polynomial::ChebyshevU:
      return {2, 0, 1};
    case Polynomial::ChebyshevV:
      return {2, is_first ? -1.0 : 0.0, 1};
    case Polynomial::ChebyshevW:
      return {2, is_first ? 1.0 : 0.0, 1};
    case Polynomial::HermiteH:
      return {2, 0, 2 * m};
    case Polynomial::HermiteHe:
      return {1, 0, m};
    case Polynomial::LaguerreL:
      return {-1 / (m + 1), (2 * m + 1) / (m + 1), m / (m + 1)};
    case Polynomial::LegendreP:
      return {(2 * m + 1) / (m + 1), 0, m / (m + 1)};
    default: {
      // The shifted ones are the others at 2 * x - 1.
      constexpr auto distance = static_cast<int>(Polynomial::ShiftedChebyshevT) -
                                static_cast<int>(Polynomial::ChebyshevT);
      const Step plain = step(static_cast<Polynomial>(static_cast<int>(family) - distance), m);
      return {2 * plain.slope, plain.offset - plain.slope, plain.back};
    }
  }
}

}  // namespace

Tensor compute_polynomial_derivative(const Tensor& x, const Tensor& n, Polynomial family,
                                     int64_t times) {
  const auto dtype = at::result_type(x, n);
  const Tensor degrees = n.to(at::kLong);
  const Tensor wide = x.to(at::kDouble);
  // Degrees below zero stand for the polynomial zero.
  Tensor result = at::zeros_like(wide.mul(degrees));
  const int64_t highest = degrees.numel() == 0 ? -1 : degrees.max().item<int64_t>();
  // The derivatives taken 0, 1, ..., `times` times, of degree m and of the one before.
  std::vector<Tensor> current(times + 1, at::zeros_like(wide));
  std::vector<Tensor> before = current;
  current[0] = at::ones_like(wide);
  for (int64_t m = 0;; ++m) {
    result = at::where(degrees.eq(m), current[times], result);
    if (m >= highest) {
      return result.to(dtype);
    }
    const Step next = step(family, static_cast<double>(m));
    const Tensor factor = wide.mul(next.slope).add(next.offset);
    std::vector<Tensor> after;
    for (int64_t k = 0; k <= times; ++k) {
      Tensor derivative = factor.mul(current[k]).sub(before[k], next.back);
      if (k > 0) {
        derivative = derivative.add(current[k - 1], static_cast<double>(k) * next.slope);
      }
      after.push_back(std::move(derivative));
    }
    before = std::exchange(current, std::move(after));
  }
}

}  // namespace functx
