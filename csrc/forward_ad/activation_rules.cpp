// Activations. PyTorch's backward operators multiply by the derivative in one pass, which serves
// forward mode as well.
#include <ATen/ops/where.h>

#include "forward_ad/families.h"

namespace functx {
namespace {

// By a backward operator of the form (grad, input, rest...). For complex numbers that multiplies by
// the conjugate of the derivative.
template <class Backward>
constexpr auto by_backward_of_input =
    [](const Tensor& t, const Tensor& x, const Tensor&, const auto&... rest) {
      return x.is_complex() ? Backward::call(t.conj(), x, rest...).conj()
                            : Backward::call(t, x, rest...);
    };

std::tuple<Dual, Tensor> log_sigmoid_forward(const Dual& self) {
  auto [primal, buffer] = ops::log_sigmoid_forward::call(self.primal);
  Tensor tangent = ops::log_sigmoid_backward::call(self.tangent, self.primal, buffer);
  return {Dual{std::move(primal), std::move(tangent)}, std::move(buffer)};
}

Dual glu(const Dual& self, int64_t dim) {
  const auto x = self.primal.chunk(2, dim);
  const auto t = self.tangent.chunk(2, dim);
  const Tensor gate = x[1].sigmoid();
  Tensor tangent = t[0].mul(gate).add(ops::sigmoid_backward::call(t[1].mul(x[0]), gate));
  return {ops::glu::call(self.primal, dim), std::move(tangent)};
}

std::tuple<Dual, Tensor> native_dropout(const Dual& input, double p, std::optional<bool> train) {
  auto [primal, mask] = ops::native_dropout::call(input.primal, p, train);
  Tensor tangent = !train.value_or(true)
                       ? input.tangent
                       : input.tangent.mul(mask).mul(p == 1 ? 0.0 : 1.0 / (1.0 - p));
  return {Dual{std::move(primal), std::move(tangent), false}, std::move(mask)};
}

// In training, the noise that the operator writes is what it multiplies by.
std::tuple<Dual, Tensor> rrelu(const LevelPtr& level, const Dual& self, const Tensor& noise,
                               const at::Scalar& lower, const at::Scalar& upper, bool training,
                               std::optional<at::Generator> generator) {
  Tensor slopes = unwrap_dual(level, noise).primal;
  Dual result{ops::rrelu_with_noise::call(self.primal, slopes, lower, upper, training,
                                          std::move(generator)),
              {}};
  if (self.has_tangent()) {
    result.tangent = ops::rrelu_with_noise_backward::call(self.tangent, self.primal, slopes, lower,
                                                          upper, training, false);
  }
  return {std::move(result), std::move(slopes)};
}

Tensor rrelu_with_noise(const LevelPtr& level, const Tensor& self, Tensor& noise,
                        const at::Scalar& lower, const at::Scalar& upper, bool training,
                        std::optional<at::Generator> generator) {
  auto [result, slopes] =
      rrelu(level, unwrap_dual(level, self), noise, lower, upper, training, std::move(generator));
  write_tangent(ops::rrelu_with_noise::name, level, noise, {});
  return make_dual(level, std::move(result));
}

Tensor& rrelu_with_noise_(const LevelPtr& level, Tensor& self, Tensor& noise,
                          const at::Scalar& lower, const at::Scalar& upper, bool training,
                          std::optional<at::Generator> generator) {
  const Dual old = unwrap_dual(level, self);
  // What it saves for a backward must not be what is written to next.
  const Tensor kept =
      detail::is_recorded_below(old.primal, old.tangent) ? old.primal.clone() : old.primal;
  auto [result, slopes] =
      rrelu(level, {kept, old.tangent}, noise, lower, upper, training, std::move(generator));
  write_tangent(ops::rrelu_with_noise_::name, level, noise, {});
  old.primal.copy_(result.primal);
  write_tangent(ops::rrelu_with_noise_::name, level, self, result.tangent);
  return self;
}

std::tuple<Tensor, Tensor> rrelu_with_noise_functional(const LevelPtr& level, const Tensor& self,
                                                       const Tensor& noise, const at::Scalar& lower,
                                                       const at::Scalar& upper, bool training,
                                                       std::optional<at::Generator> generator) {
  auto [result, slopes] =
      rrelu(level, unwrap_dual(level, self), unwrap_dual(level, noise).primal.clone(), lower, upper,
            training, std::move(generator));
  return {make_dual(level, std::move(result)), make_dual(level, {std::move(slopes), {}})};
}

// The operators that compute these in one pass have no derivative of their own.
Tensor silu(const Tensor& t, const Tensor& x, const Tensor& y) {
  if (!detail::is_recorded_below(t, x)) {
    return ops::silu_backward::call(t, x);
  }
  // y = x * s with s' = s * (1 - s).
  const Tensor s = x.sigmoid();
  return t.mul(s.add(y).sub(y.mul(s)));
}

Tensor mish(const Tensor& t, const Tensor& x, const Tensor&) {
  if (!detail::is_recorded_below(t, x)) {
    return ops::mish_backward::call(t, x);
  }
  // y = x * w with w = tanh(softplus(x)) and w' = (1 - w^2) * sigmoid(x).
  const Tensor w = ops::softplus::call(x, 1, 20).tanh();
  return t.mul(w.add(x.mul(x.sigmoid()).mul(w.square().neg().add(1))));
}

}  // namespace

FUNCTX_RULES(jvp_activation) {
  elementwise<ops::tanh, [](auto& t, auto&, auto& y) {
    return y.is_complex() ? t.sub(t.mul(y.square())) : ops::tanh_backward::call(t, y);
  }>();
  elementwise<ops::sigmoid, [](auto& t, auto&, auto& y) {
    return y.is_complex() ? t.mul(y.sub(y.square())) : ops::sigmoid_backward::call(t, y);
  }>();
  elementwise<ops::relu,
              [](auto& t, auto&, auto& y) { return ops::threshold_backward::call(t, y, 0); }>();
  elementwise<ops::threshold, [](auto& t, auto& x, auto&, auto& threshold, auto&) {
    return ops::threshold_backward::call(t, x, threshold);
  }>();
  elementwise<ops::gelu, by_backward_of_input<ops::gelu_backward>>();
  elementwise<ops::silu, silu>();
  elementwise<ops::mish, mish>();
  elementwise<ops::softplus, by_backward_of_input<ops::softplus_backward>>();
  elementwise<ops::softshrink, by_backward_of_input<ops::softshrink_backward>>();
  elementwise<ops::hardshrink, by_backward_of_input<ops::hardshrink_backward>>();
  elementwise<ops::hardtanh, by_backward_of_input<ops::hardtanh_backward>>();
  elementwise<ops::hardsigmoid, [](auto& t, auto& x, auto&) {
    return zero_unless(x.gt(-3).logical_and(x.lt(3)), t.div(6));
  }>();
  elementwise<ops::hardswish, by_backward_of_input<ops::hardswish_backward>>();
  elementwise<ops::leaky_relu, [](auto& t, auto& x, auto&, auto& slope) {
    return ops::leaky_relu_backward::call(t, x, slope, false);
  }>();
  elementwise<ops::elu, [](auto& t, auto& x, auto&, auto& alpha, auto& scale, auto& input_scale) {
    return ops::elu_backward::call(t, alpha, scale, input_scale, false, x);
  }>();
  elementwise<ops::celu, [](auto& t, auto& x, auto&, auto& alpha) {
    return ops::elu_backward::call(t, alpha, 1, 1.0 / alpha.toDouble(), false, x);
  }>();
  dual_rule<ops::log_sigmoid_forward, log_sigmoid_forward>();
  dual_rule<ops::glu, glu>();
  dual_rule<ops::native_dropout, native_dropout>();
  Rules<ops::rrelu_with_noise>::dual = &rrelu_with_noise;
  Rules<ops::rrelu_with_noise_>::dual = &rrelu_with_noise_;
  Rules<ops::rrelu_with_noise_functional>::dual = &rrelu_with_noise_functional;
  install_kernel<ops::rrelu_with_noise>();
  install_kernel<ops::rrelu_with_noise_>();
  install_kernel<ops::rrelu_with_noise_functional>();
  partials<ops::_prelu_kernel,
           [](auto& t, auto&, auto& x, auto& w) { return at::where(x.ge(0), t, t.mul(w)); },
           [](auto& t, auto&, auto& x, auto&) { return t.mul(x.clamp_max(0)); }>();
}

}  // namespace functx
