// Distances between rows: by the differences of all pairs, whose norms they are.
#include <ATen/ops/triu_indices.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "forward_ad/conform.h"
#include "forward_ad/rule.h"
#include "reverse_ad/recordable.h"
#include "reverse_ad/values.h"

namespace functx {
namespace {

// The slopes of the p-norm `length` of the last dimension of `difference`. Where one has no limit
// it is zero.
Tensor norm_slopes(const Tensor& difference, const Tensor& length, double p) {
  const Tensor sign = difference.sgn();
  if (p == 1) {
    return sign;
  }
  const Tensor whole = length.unsqueeze(-1);
  const Tensor divisor = whole.masked_fill(whole.eq(0), 1);
  if (p == 2) {
    return difference.div(divisor).masked_fill(whole.eq(0), 0);
  }
  const Tensor size = difference.abs();
  if (std::isinf(p)) {
    return zero_unless(size.eq(whole), sign);
  }
  const Tensor is_zero = difference.eq(0);
  const Tensor share = size.div(divisor).masked_fill(is_zero, 1);
  return sign.mul(share.pow(p - 1)).masked_fill(is_zero, 0);
}

// How it changes along `tangent`.
Tensor norm_tangent(const Tensor& tangent, const Tensor& difference, const Tensor& length,
                    double p) {
  return p == 0 ? Tensor() : tangent.mul(norm_slopes(difference, length, p)).sum(-1);
}

// Of all rows of two sets, [.., m, d] and [.., n, d].
Dual distances(const Dual& x1, const Dual& x2, double p, Tensor lengths) {
  const Tensor difference = x1.primal.unsqueeze(-2).sub(x2.primal.unsqueeze(-3));
  Tensor change;
  if (x1.has_tangent()) {
    change = x1.tangent.unsqueeze(-2);
  }
  if (x2.has_tangent()) {
    change = sum_of(std::move(change), x2.tangent.unsqueeze(-3).neg());
  }
  Tensor tangent = norm_tangent(change, difference, lengths, p);
  return {std::move(lengths), std::move(tangent)};
}

Dual cdist(const Dual& x1, const Dual& x2, double p, std::optional<int64_t> compute_mode) {
  return distances(x1, x2, p, ops::_cdist_forward::call(x1.primal, x2.primal, p, compute_mode));
}

Dual euclidean_dist(const Dual& x1, const Dual& x2) {
  return distances(x1, x2, 2, ops::_euclidean_dist::call(x1.primal, x2.primal));
}

// The gradient by `x1`, in operators that can be differentiated.
Tensor cdist_gradient(const Tensor& grad, const Tensor& x1, const Tensor& x2, double p,
                      const Tensor& lengths) {
  if (p == 0) {
    return at::zeros_like(x1);
  }
  const Tensor difference = x1.unsqueeze(-2).sub(x2.unsqueeze(-3));
  return grad.unsqueeze(-1).mul(norm_slopes(difference, lengths, p)).sum(-2);
}

Tensor cdist_backward(const LevelPtr& level, const Tensor& grad, const Tensor& x1, const Tensor& x2,
                      double p, const Tensor& lengths) {
  return cdist_gradient(untaped(level, grad), untaped(level, x1), untaped(level, x2), p,
                        untaped(level, lengths));
}

// All pairs of rows of one set.
struct Pairs {
  explicit Pairs(const Tensor& rows) {
    const auto count = rows.sym_size(0).guard_int(__FILE__, __LINE__);
    const Tensor both = at::triu_indices(count, count, 1, rows.options().dtype(at::kLong));
    first = both.select(0, 0);
    second = both.select(0, 1);
  }

  Tensor difference(const Tensor& rows) const {
    return rows.index_select(0, first).sub(rows.index_select(0, second));
  }

  Tensor first, second;
};

Dual pdist(const Dual& rows, double p) {
  const Pairs pairs(rows.primal);
  Tensor lengths = ops::_pdist_forward::call(rows.primal, p);
  Tensor tangent =
      norm_tangent(pairs.difference(rows.tangent), pairs.difference(rows.primal), lengths, p);
  return {std::move(lengths), std::move(tangent)};
}

Tensor pdist_gradient(const Tensor& grad, const Tensor& rows, double p, const Tensor& lengths) {
  const Tensor zeros = at::zeros_like(rows);
  if (p == 0) {
    return zeros;
  }
  const Pairs pairs(rows.detach());
  const Tensor terms = grad.unsqueeze(-1).mul(norm_slopes(pairs.difference(rows), lengths, p));
  return zeros.index_add(0, pairs.first, terms).index_add(0, pairs.second, terms, -1);
}

Tensor pdist_backward(const LevelPtr& level, const Tensor& grad, const Tensor& rows, double p,
                      const Tensor& lengths) {
  return pdist_gradient(untaped(level, grad), untaped(level, rows), p, untaped(level, lengths));
}

// As a norm, whose derivatives of higher order are cared for.
Tensor dist(const LevelPtr& level, const Tensor& self, const Tensor& other, const at::Scalar& p) {
  const Tensor difference = untaped(level, self).sub(untaped(level, other));
  return ops::linalg_vector_norm::call(difference, p, std::nullopt, /*keepdim=*/false,
                                       std::nullopt);
}

std::optional<Tensor> recorded_dist(const Tensor& self, const Tensor& other, const at::Scalar& p) {
  if (active_derivatives() < 2) {
    return std::nullopt;
  }
  return ops::linalg_vector_norm::call(self.sub(other), p, std::nullopt, /*keepdim=*/false,
                                       std::nullopt);
}

}  // namespace

FUNCTX_RULES(jvp_distances) {
  dual_rule<ops::_cdist_forward, cdist>();
  dual_rule<ops::_euclidean_dist, euclidean_dist>();
  dual_rule<ops::_pdist_forward, pdist>();
  Rules<ops::dist>::dual = &dist;
  Rules<ops::_cdist_backward>::dual = &cdist_backward;
  install_kernel<ops::_cdist_backward>();
  Rules<ops::_pdist_backward>::dual = &pdist_backward;
  install_kernel<ops::_pdist_backward>();
}

FUNCTX_RULES(gradients_of_distances) {
  recordable<ops::_cdist_backward, cdist_gradient>();
  recordable<ops::_pdist_backward, pdist_gradient>();
  recordable<ops::dist, recorded_dist>();
}

}  // namespace functx
