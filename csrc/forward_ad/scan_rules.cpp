// Scans that are not linear, by doubling: in each step the entries are joined with those some way
// before them, so that each is then the result of twice as many. Right at zeros, and to any order.
#include <ATen/ops/real.h>

#include <limits>

#include "forward_ad/conform.h"
#include "forward_ad/rule.h"

namespace functx {
namespace {

struct Step {
  int64_t dim, distance, size;

  Tensor first(const Tensor& all) const { return all.narrow(dim, 0, distance); }
  Tensor before(const Tensor& all) const { return all.narrow(dim, 0, size - distance); }
  Tensor here(const Tensor& all) const { return all.narrow(dim, distance, size - distance); }

  // What `all` becomes: its first entries have nothing before them.
  Tensor join(const Tensor& all, Tensor joined) const {
    return ops::cat::call(std::vector<Tensor>{first(all), std::move(joined)}, dim);
  }
  // `all` and `terms`, which are those of the entries before.
  Tensor add_before(const Tensor& all, const Tensor& terms) const {
    const Tensor last = all.narrow(dim, size - distance, distance);
    return ops::cat::call(std::vector<Tensor>{before(all).add(terms), last}, dim);
  }
};

std::vector<Step> steps_along(const Tensor& x, int64_t dim) {
  const int64_t size = x.dim() == 0 ? 1 : x.sym_size(dim).guard_int(__FILE__, __LINE__);
  std::vector<Step> steps;
  for (int64_t distance = 1; distance < size; distance *= 2) {
    steps.push_back({dim, distance, size});
  }
  return steps;
}

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
  return {std::move(primal), std::move(t), false};
}

}  // namespace

FUNCTX_RULES(jvp_scans) {
  dual_rule<ops::cumprod, cumprod>();
  Rules<ops::cumprod_backward>::dual = &cumprod_backward;
  install_kernel<ops::cumprod_backward>();
  dual_rule<ops::logcumsumexp, logcumsumexp>();
}

}  // namespace functx
