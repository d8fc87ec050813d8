// Scans that are not linear, by doubling. Right at zeros, and to any order.
#include <ATen/ops/real.h>

#include <limits>

#include "forward_ad/conform.h"
#include "forward_ad/inplace.h"
#include "forward_ad/scans.h"
#include "reverse_ad/recordable.h"
#include "reverse_ad/values.h"

namespace functx {
namespace {

// ---- products ----

Dual cumprod(const Dual& self, int64_t dim, std::optional<at::ScalarType> dtype) {
  Tensor primal = ops::cumprod::call(self.primal, dim, dtype);
  Tensor x = self.primal, t = self.tangent;
  for (const Step& step : steps_along(x, dim)) {
    const Tensor before = step.before(x), here = step.here(x);
    t = step.join(t, step.here(t).mul(before).add(here.mul(step.before(t))));
    x = step.join(x, here.mul(before));
  }
  return conform(std::move(t), std::move(primal));
}

// Back through the steps of the scan.
Tensor cumprod_gradient(Tensor grad, Tensor x, int64_t dim) {
  const auto steps = steps_along(x, dim);
  std::vector<Tensor> factors;
  for (const Step& step : steps) {
    factors.push_back(x.conj());
    x = step.join(x, step.here(x).mul(step.before(x)));
  }
  for (size_t i = steps.size(); i-- > 0;) {
    const Step& step = steps[i];
    const Tensor by_product = step.here(grad);
    const Tensor by_here = by_product.mul(step.before(factors[i]));
    const Tensor by_before = by_product.mul(step.here(factors[i]));
    grad = step.add_before(step.join(grad, by_here), by_before);
  }
  return grad;
}

// PyTorch's composition for a backward that is not recorded can't be differentiated at zeros.
Tensor cumprod_backward(const LevelPtr& level, const Tensor& grad, const Tensor& input, int64_t dim,
                        const Tensor&) {
  const auto dual = [&](const Tensor& x) { return untaped(level, x); };
  return cumprod_gradient(dual(grad), dual(input), dim);
}

Tensor recorded_cumprod_gradient(const Tensor& grad, const Tensor& input, int64_t dim,
                                 const Tensor&) {
  return cumprod_gradient(grad, input, dim);
}

// ---- sums of exponentials ----

// The share of a part in its whole, both given by their logarithms; none of nothing.
Tensor share(const Tensor& part, const Tensor& whole) {
  const Tensor size = whole.is_complex() ? at::real(whole) : whole;
  const double none = -std::numeric_limits<double>::infinity();
  return part.sub(whole).masked_fill(size.eq(none), none).exp();
}

Dual logcumsumexp(const Dual& self, int64_t dim) {
  Tensor primal = ops::logcumsumexp::call(self.primal, dim);
  Tensor x = self.primal, t = self.tangent;
  for (const Step& step : steps_along(x, dim)) {
    const Tensor before = step.before(x), here = step.here(x);
    const Tensor sum = ops::logaddexp::call(before, here);
    t = step.join(t,
                  step.before(t).mul(share(before, sum)).add(step.here(t).mul(share(here, sum))));
    x = step.join(x, sum);
  }
  // PyTorch's operator has no second derivative by cotangents of zero, and a tape would record it.
  if (!x.is_complex() && detail::is_recorded_below(self.primal)) {
    return {x.alias(), std::move(t), false};
  }
  return {std::move(primal), std::move(t), false};
}

// PyTorch's gradient has the logarithm of gradients in it, which may be zero.
std::optional<Tensor> recorded_logcumsumexp(const Tensor& self, int64_t dim) {
  if (active_derivatives() < 2 || self.is_complex() || self.dim() == 0) {
    return std::nullopt;
  }
  Tensor result = self;
  for (const Step& step : steps_along(self, dim)) {
    result = step.join(result, ops::logaddexp::call(step.before(result), step.here(result)));
  }
  return result.alias();
}

}  // namespace

FUNCTX_RULES(jvp_scans) {
  dual_rule<ops::cumprod, cumprod>();
  Rules<ops::cumprod_backward>::dual = &cumprod_backward;
  install_kernel<ops::cumprod_backward>();
  dual_rule<ops::logcumsumexp, logcumsumexp>();
}

FUNCTX_RULES(gradients_of_scans) {
  recordable<ops::cumprod_backward, recorded_cumprod_gradient>();
  recordable<ops::logcumsumexp, recorded_logcumsumexp>();
}

}  // namespace functx
