// Elementwise functions of several tensors, which may broadcast and be of different dtypes.
#include <ATen/ops/imag.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/real.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "forward_ad/families.h"
#include "reverse_ad/differentiated.h"
#include "reverse_ad/recordable.h"
#include "reverse_ad/values.h"

namespace functx {
namespace {

// ---- quotients ----

Tensor quotient_tangent(const Dual& self, const Dual& other, const Tensor& quotient) {
  if (!other.has_tangent()) {
    return self.tangent.div(other.primal);
  }
  const Tensor change = other.tangent.mul(quotient);
  return (self.has_tangent() ? self.tangent.sub(change) : change.neg()).div(other.primal);
}

Dual div(const Dual& self, const Dual& other) {
  Tensor primal = ops::div_Tensor::call(self.primal, other.primal);
  // A quotient may be written to, since its gradient doesn't need it. That of the tangent does.
  const bool is_saved = detail::is_recorded_below(other.tangent);
  Tensor tangent = quotient_tangent(self, other, is_saved ? primal.clone() : primal);
  return conform(std::move(tangent), std::move(primal));
}

Dual div_mode(const Dual& self, const Dual& other, std::optional<c10::string_view> mode) {
  if (!mode.has_value()) {
    return div(self, other);
  }
  return {ops::div_Tensor_mode::call(self.primal, other.primal, mode), {}};
}

constexpr auto of_self = [](auto& t, auto&...) { return t; };

// The remainder of a division that is rounded in this `mode`.
template <char mode>
Tensor by_divisor(const Tensor& t, const Tensor&, const Tensor& self, const Tensor& other) {
  return t.mul(self.div(other, mode == 'f' ? "floor" : "trunc")).neg();
}

// PyTorch has a derivative of the remainder only if a tensor is divided.
Tensor as_tensor(const at::Scalar& number, const Tensor& like) {
  const HideFrom all_levels;
  return at::scalar_tensor(number, like.options());
}

Tensor remainder_gradient(const at::Scalar& self, const Tensor& other) {
  return ops::remainder_Tensor::call(as_tensor(self, other), other);
}

Dual remainder_of_number(const at::Scalar& self, const Dual& other) {
  return {ops::remainder_Scalar_Tensor::call(self, other.primal),
          by_divisor<'f'>(other.tangent, {}, as_tensor(self, other.primal), other.primal)};
}

// ---- powers ----

at::Scalar minus_one(const at::Scalar& x) {
  if (x.isComplex()) {
    return x.toComplexDouble() - 1.0;
  }
  return x.isIntegral(true) ? at::Scalar(x.toLong() - 1) : at::Scalar(x.toDouble() - 1);
}

Tensor pow_scalar(const Tensor& t, const Tensor& x, const Tensor&, const at::Scalar& exponent) {
  if (exponent.equal(0)) {
    return {};
  }
  if (exponent.equal(1)) {
    return t;
  }
  if (exponent.equal(2)) {
    return t.mul(x).mul(2);
  }
  return t.mul(x.pow(minus_one(exponent))).mul(exponent);
}

Tensor by_base(const Tensor& t, const Tensor&, const Tensor& base, const Tensor& exponent) {
  // The power of a constant has no slope, not even an infinite one times zero.
  const Tensor is_infinite = exponent.eq(0).logical_and(base.eq(0));
  return t.mul(exponent.mul(base.masked_fill(is_infinite, 1).pow(exponent.sub(1))));
}

// Where zero to this power is constant.
Tensor is_flat_at_zero(const Tensor& exponent) {
  return exponent.is_complex() ? at::imag(exponent).eq(0).logical_and(at::real(exponent).ge(0))
                               : exponent.ge(0);
}

Tensor by_exponent(const Tensor& t, const Tensor& y, const Tensor& base, const Tensor& exponent) {
  const Tensor flat = base.eq(0).logical_and(is_flat_at_zero(exponent));
  return t.mul(y.mul(base.log()).masked_fill(flat, 0));
}

Dual scalar_pow(const at::Scalar& base, const Dual& exponent) {
  Tensor primal = ops::pow_Scalar::call(base, exponent.primal);
  if (base.equal(0)) {
    const Tensor slope = primal.mul(-INFINITY).masked_fill(is_flat_at_zero(exponent.primal), 0);
    Tensor tangent = exponent.tangent.mul(slope);
    return conform(std::move(tangent), std::move(primal));
  }
  const at::Scalar log = base.isComplex() ? at::Scalar(std::log(base.toComplexDouble()))
                                          : at::Scalar(std::log(base.toDouble()));
  Tensor tangent = exponent.tangent.mul(primal).mul(log);
  return conform(std::move(tangent), std::move(primal));
}

// Powers of zero that are polynomials. PyTorch's derivative of one is a multiple of a power again,
// and where that multiple is zero at last, the power is infinite.
std::optional<Tensor> recorded_pow(const Tensor& base, const Tensor& exponent) {
  constexpr int64_t largest = 6;
  const Tensor plain = plain_value(base);
  if (active_derivatives() < 2 || is_differentiated(exponent) || !has_numbers(plain) ||
      !any_zero(plain)) {
    return std::nullopt;
  }
  const Tensor is_zero = constant(base).eq(0);
  Tensor powers = at::zeros_like(exponent).add(constant(base), 0);
  Tensor is_done = is_zero.logical_not();
  for (int64_t power = 0; power <= largest; ++power) {
    const Tensor is_power = is_zero.logical_and(exponent.eq(power));
    powers = at::where(is_power, base.pow(power), powers);
    is_done = is_done.logical_or(is_power);
  }
  if (!plain_value(is_done).all().item<bool>()) {
    return std::nullopt;
  }
  return at::where(is_zero, powers,
                   ops::pow_Tensor_Tensor::call(base.masked_fill(is_zero, 1), exponent));
}

// ---- choices ----

// One where x wins, a half where it ties, as PyTorch has it.
Tensor share(const Tensor& t, const Tensor& wins, const Tensor& x, const Tensor& other) {
  return t.mul(wins.to(t.scalar_type()).masked_fill(x.eq(other), 0.5));
}

constexpr auto by_self_maximum = [](auto& t, auto&, auto& a, auto& b) {
  return share(t, a.gt(b), a, b);
};
constexpr auto by_other_maximum = [](auto& t, auto&, auto& a, auto& b) {
  return share(t, a.gt(b).logical_not(), a, b);
};
constexpr auto by_self_minimum = [](auto& t, auto&, auto& a, auto& b) {
  return share(t, a.lt(b), a, b);
};
constexpr auto by_other_minimum = [](auto& t, auto&, auto& a, auto& b) {
  return share(t, a.lt(b).logical_not(), a, b);
};

Tensor takes_self_fmax(const Tensor& a, const Tensor& b) { return a.gt(b).logical_or(b.isnan()); }
Tensor takes_self_fmin(const Tensor& a, const Tensor& b) { return a.le(b).logical_or(b.isnan()); }

Dual where(const Dual& condition, const Dual& self, const Dual& other) {
  Tensor primal = ops::where_self::call(condition.primal, self.primal, other.primal);
  Tensor tangent = !other.has_tangent() ? zero_unless(condition.primal, self.tangent)
                   : !self.has_tangent()
                       ? zero_unless(condition.primal.logical_not(), other.tangent)
                       : at::where(condition.primal, self.tangent, other.tangent);
  return conform(std::move(tangent), std::move(primal));
}

Tensor zero_or(const Tensor& condition, const Dual& inside, const Dual& outside) {
  return at::where(condition, tangent_or_zeros(inside), tangent_or_zeros(outside));
}

// The upper bound wins where the bounds cross.
Dual clamp(const Dual& self, const Dual& min, const Dual& max) {
  const auto optional = [](const Dual& d) {
    return d.defined() ? std::make_optional(d.primal) : std::nullopt;
  };
  Tensor primal = ops::clamp_Tensor::call(self.primal, optional(min), optional(max));
  Dual bounded = self;
  if (min.defined()) {
    bounded.tangent =
        zero_or(max.defined() ? self.primal.ge(min.primal) : self.primal.gt(min.primal), self, min);
  }
  if (max.defined()) {
    const Tensor inside = min.defined()
                              ? self.primal.le(max.primal).logical_and(min.primal.le(max.primal))
                              : self.primal.lt(max.primal);
    bounded.tangent = at::where(inside, tangent_or_zeros(bounded), tangent_or_zeros(max));
  }
  return conform(std::move(bounded.tangent), std::move(primal));
}

// ---- sums of products ----

Dual addcmul(const Dual& self, const Dual& a, const Dual& b, const at::Scalar& value) {
  Tensor primal = ops::addcmul::call(self.primal, a.primal, b.primal, value);
  Tensor tangent = self.tangent;
  const auto add_product = [&](const Tensor& left, const Tensor& right) {
    if (left.defined() && right.defined()) {
      tangent =
          tangent.defined() ? tangent.addcmul(left, right, value) : left.mul(right).mul(value);
    }
  };
  add_product(a.tangent, b.primal);
  add_product(b.tangent, a.primal);
  return conform(std::move(tangent), std::move(primal));
}

Dual addcdiv(const Dual& self, const Dual& a, const Dual& b, const at::Scalar& value) {
  Tensor primal = ops::addcdiv::call(self.primal, a.primal, b.primal, value);
  Tensor tangent = self.tangent;
  if (a.has_tangent() || b.has_tangent()) {
    const Tensor change =
        quotient_tangent(a, b, b.has_tangent() ? a.primal.div(b.primal) : Tensor());
    tangent = sum_of(std::move(tangent), value.equal(1) ? change : change.mul(value));
  }
  return conform(std::move(tangent), std::move(primal));
}

Dual lerp_scalar(const Dual& self, const Dual& end, const at::Scalar& weight) {
  Tensor primal = ops::lerp_Scalar::call(self.primal, end.primal, weight);
  Tensor tangent = self.has_tangent() && end.has_tangent()
                       ? ops::lerp_Scalar::call(self.tangent, end.tangent, weight)
                   : end.has_tangent() ? end.tangent.mul(weight)
                                       : self.tangent.sub(self.tangent.mul(weight));
  return conform(std::move(tangent), std::move(primal));
}

Dual rsub(const Dual& self, const Dual& other, const at::Scalar& alpha) {
  Tensor primal = ops::rsub_Tensor::call(self.primal, other.primal, alpha);
  Tensor tangent = self.has_tangent() && other.has_tangent()
                       ? ops::sub_Tensor::call(other.tangent, self.tangent, alpha)
                   : other.has_tangent() ? other.tangent
                                         : self.tangent.mul(alpha).neg();
  return conform(std::move(tangent), std::move(primal));
}

Dual polar(const Dual& abs, const Dual& angle) {
  Tensor primal = ops::polar::call(abs.primal, angle.primal);
  Tensor along, across;
  if (abs.has_tangent()) {
    // Of length one: PyTorch's gradient of a negative length is wrong.
    along = ops::polar::call(at::ones_like(angle.primal), angle.primal).mul(abs.tangent);
  }
  if (angle.has_tangent()) {
    across = primal.mul(angle.tangent).mul(c10::complex<double>(0, 1));
  }
  return conform(sum_of(std::move(along), std::move(across)), std::move(primal));
}

// The larger one plus log(1 + exp(-gap)). PyTorch's gradient has the difference of the arguments in
// it, which is not a number where they are the same infinity: a masked-out element would spoil the
// second derivatives of all. maximum and minimum would not do: their derivatives are halves in a
// tie.
std::optional<Tensor> logaddexp_gradient(const Tensor& self, const Tensor& other) {
  if (active_derivatives() < 2 || self.is_complex() || other.is_complex()) {
    return std::nullopt;
  }
  const Tensor is_larger = self.ge(other);
  const Tensor larger = at::where(is_larger, self, other);
  const Tensor smaller = at::where(is_larger, other, self);
  const Tensor same_infinity = larger.eq(smaller).logical_and(larger.isinf());
  const Tensor gap = larger.sub(smaller).masked_fill(same_infinity, 0);
  return larger.sub(at::log_sigmoid(gap));
}

}  // namespace

FUNCTX_RULES(gradients_of_binary_functions) {
  recordable<ops::logaddexp, logaddexp_gradient>();
  recordable<ops::pow_Tensor_Tensor, recorded_pow>();
  recordable<ops::remainder_Scalar_Tensor, remainder_gradient>();
}

FUNCTX_RULES(jvp_quotients) {
  dual_rule<ops::div_Tensor, div>();
  dual_rule<ops::div_Tensor_mode, div_mode>();
  partials<ops::remainder_Tensor, of_self, by_divisor<'f'>>();
  dual_rule<ops::remainder_Scalar_Tensor, remainder_of_number>();
  partials<ops::fmod_Tensor, of_self, by_divisor<'t'>>();
  partials<ops::atan2,
           [](auto& t, auto&, auto& y, auto& x) {
             return t.mul(x).div(y.square().add(x.square()));
           },
           [](auto& t, auto&, auto& y, auto& x) {
             return t.mul(y).div(y.square().add(x.square())).neg();
           }>();
  partials<ops::hypot, [](auto& t, auto& h, auto& a, auto&) { return t.mul(a.div(h)); },
           [](auto& t, auto& h, auto&, auto& b) { return t.mul(b.div(h)); }>();
}

FUNCTX_RULES(jvp_powers) {
  elementwise<ops::pow_Tensor_Scalar, pow_scalar>();
  partials<ops::pow_Tensor_Tensor, by_base, by_exponent>();
  dual_rule<ops::pow_Scalar, scalar_pow>();
  partials<ops::logaddexp,
           [](auto& t, auto&, auto& a, auto& b) { return t.mul(a.sub(b).sigmoid()); },
           [](auto& t, auto&, auto& a, auto& b) { return t.mul(b.sub(a).sigmoid()); }>();
  partials<ops::logaddexp2,
           [](auto& t, auto&, auto& a, auto& b) { return t.mul(a.sub(b).mul(M_LN2).sigmoid()); },
           [](auto& t, auto&, auto& a, auto& b) { return t.mul(b.sub(a).mul(M_LN2).sigmoid()); }>();
}

FUNCTX_RULES(jvp_choices) {
  partials<ops::maximum, by_self_maximum, by_other_maximum>();
  partials<ops::minimum, by_self_minimum, by_other_minimum>();
  partials<ops::fmax,
           [](auto& t, auto&, auto& a, auto& b) { return zero_unless(takes_self_fmax(a, b), t); },
           [](auto& t, auto&, auto& a, auto& b) {
             return zero_unless(takes_self_fmax(a, b).logical_not(), t);
           }>();
  partials<ops::fmin,
           [](auto& t, auto&, auto& a, auto& b) { return zero_unless(takes_self_fmin(a, b), t); },
           [](auto& t, auto&, auto& a, auto& b) {
             return zero_unless(takes_self_fmin(a, b).logical_not(), t);
           }>();
  dual_rule<ops::where_self, where>();
  dual_rule<ops::clamp_Tensor, clamp>();
  partials<ops::clamp_min_Tensor,
           [](auto& t, auto&, auto& x, auto& min) { return zero_unless(x.ge(min), t); },
           [](auto& t, auto&, auto& x, auto& min) { return zero_unless(x.lt(min), t); }>();
  partials<ops::clamp_max_Tensor,
           [](auto& t, auto&, auto& x, auto& max) { return zero_unless(x.le(max), t); },
           [](auto& t, auto&, auto& x, auto& max) { return zero_unless(x.gt(max), t); }>();
  partials<ops::copysign_Tensor,
           [](auto& t, auto& y, auto& x, auto&) { return t.mul(quotient_or_zero(y, x)); }>();
  elementwise<ops::copysign_Scalar,
              [](auto& t, auto& x, auto& y, auto&) { return t.mul(quotient_or_zero(y, x)); }>();
}

FUNCTX_RULES(jvp_sums_of_products) {
  dual_rule<ops::addcmul, addcmul>();
  dual_rule<ops::addcdiv, addcdiv>();
  dual_rule<ops::lerp_Scalar, lerp_scalar>();
  partials<ops::lerp_Tensor, [](auto& t, auto&, auto&, auto&, auto& w) { return t.sub(t.mul(w)); },
           [](auto& t, auto&, auto&, auto&, auto& w) { return t.mul(w); },
           [](auto& t, auto&, auto& start, auto& end, auto&) { return t.mul(end.sub(start)); }>();
  dual_rule<ops::rsub_Tensor, rsub>();
  dual_rule<ops::polar, polar>();
  linear<ops::complex>();
}

}  // namespace functx
