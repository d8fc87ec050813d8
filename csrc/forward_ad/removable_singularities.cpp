// Functions that are smooth where the formula for their derivative divides by zero, or by so little
// that nothing is left of it. There they are what their power series says.
#include <ATen/ops/where.h>

#include <cmath>

#include "forward_ad/families.h"
#include "reverse_ad/recordable.h"
#include "reverse_ad/values.h"

namespace functx {
namespace {

// Beyond, a quotient by x ** 4 has enough digits; below, ten terms are enough for derivatives of
// this order.
constexpr double kNear = 0.1;
constexpr int64_t kTerms = 10;

bool any_near(const Tensor& plain) {
  if (!can_be_read(plain)) {
    return plain.detach().abs().lt(kNear).any().item<bool>();
  }
  const Sizes sizes = sizes_of(plain);
  return sizes.any_zero || sizes.smallest < kNear;
}

// For forward mode: a device is not waited for.
bool may_be_near(const Tensor& x) {
  const Tensor plain = plain_value(x);
  return has_numbers(plain) && (!can_be_read(plain) || any_near(plain));
}

// For reverse mode, whose first derivative PyTorch has right.
bool is_right(const Tensor& x) {
  const Tensor plain = plain_value(x);
  return active_derivatives() < 2 || !has_numbers(plain) || !any_near(plain);
}

// The sum of coefficient(k) * z ** k.
template <class Coefficient>
Tensor power_series(const Tensor& z, const Coefficient& coefficient) {
  Tensor sum = z.mul(coefficient(kTerms)).add(coefficient(kTerms - 1));
  for (int64_t k = kTerms - 2; k >= 0; --k) {
    sum = sum.mul(z).add(coefficient(k));
  }
  return sum;
}

// By `series` of x near zero, by `formula` of x elsewhere. Neither sees the numbers of the other.
template <class Series, class Formula>
Tensor near_or_far(const Tensor& x, const Series& series, const Formula& formula) {
  const Tensor near = constant(x).abs().lt(kNear);
  return at::where(near, series(x.masked_fill(near.logical_not(), 0)),
                   formula(x.masked_fill(near, 1)));
}

// ---- sin(pi x) / (pi x) ----

double sinc_coefficient(int64_t k) {
  return (k % 2 == 0 ? 1 : -1) * std::pow(M_PI, 2 * k) / std::tgamma(2 * k + 2);
}

Tensor sinc_series(const Tensor& x) { return power_series(x.square(), sinc_coefficient); }

Tensor sinc_slope_series(const Tensor& x) {
  return x.mul(power_series(x.square(), [](int64_t k) {
    return static_cast<double>(2 * k + 2) * sinc_coefficient(k + 1);
  }));
}

Tensor sinc(const Tensor& t, const Tensor& x, const Tensor& y) {
  if (!may_be_near(x)) {
    return t.mul(x.mul(M_PI).cos().sub(y).div(x));
  }
  return t.mul(near_or_far(x, sinc_slope_series, [](const Tensor& far) {
    return far.mul(M_PI).cos().sub(ops::sinc::call(far)).div(far);
  }));
}

std::optional<Tensor> recorded_sinc(const Tensor& x) {
  if (is_right(x)) {
    return std::nullopt;
  }
  return near_or_far(x, sinc_series, [](const Tensor& far) {
    const Tensor angle = far.mul(M_PI);
    return angle.sin().div(angle);
  });
}

// ---- the Bessel function I of order one ----

// Of I1(x) / x.
Tensor i1_over_x_series(const Tensor& x) {
  return power_series(x.square(), [](int64_t k) {
    return std::pow(0.25, k) / (2 * std::tgamma(k + 1) * std::tgamma(k + 2));
  });
}

Tensor i1(const Tensor& t, const Tensor& x, const Tensor& y) {
  if (!may_be_near(x)) {
    return t.mul(x.i0().sub(y.div(x)));
  }
  const Tensor quotient = near_or_far(
      x, i1_over_x_series, [](const Tensor& far) { return ops::special_i1::call(far).div(far); });
  return t.mul(x.i0().sub(quotient));
}

std::optional<Tensor> recorded_i1(const Tensor& x) {
  if (is_right(x)) {
    return std::nullopt;
  }
  return near_or_far(
      x, [](const Tensor& near) { return near.mul(i1_over_x_series(near)); },
      [](const Tensor& far) {
        // In which this function will find nothing to do.
        return ops::special_i1::call(far);
      });
}

}  // namespace

FUNCTX_RULES(jvp_removable_singularities) {
  elementwise<ops::sinc, sinc>();
  elementwise<ops::special_i1, i1>();
}

FUNCTX_RULES(gradients_of_removable_singularities) {
  recordable<ops::sinc, recorded_sinc>();
  recordable<ops::special_i1, recorded_i1>();
}

}  // namespace functx
