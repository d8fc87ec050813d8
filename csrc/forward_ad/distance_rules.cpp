// Distances between rows: by the differences of all pairs, whose norms they are.
#include <ATen/ops/triu_indices.h>

#include <cmath>

#include "forward_ad/conform.h"
#include "forward_ad/rule.h"

namespace functx {
namespace {

// How the p-norm `length` of the last dimension of `difference` changes along `tangent`. Where a
// slope has no limit it is zero.
Tensor norm_slope(const Tensor& tangent, const Tensor& difference, const Tensor& length, double p) {
  if (p == 0) {
    return {};
  }
  const Tensor growth = tangent.mul(difference.sgn());
  if (p == 1) {
    return growth.sum(-1);
  }
  const Tensor size = difference.abs();
  const Tensor whole = length.unsqueeze(-1);
  if (std::isinf(p)) {
    return zero_unless(size.eq(whole), growth).sum(-1);
  }
  const Tensor is_zero = difference.eq(0);
  const Tensor share = size.div(whole.masked_fill(whole.eq(0), 1)).masked_fill(is_zero, 1);
  return growth.mul(share.pow(p - 1)).masked_fill(is_zero, 0).sum(-1);
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
  Tensor tangent = norm_slope(change, difference, lengths, p);
  return {std::move(lengths), std::move(tangent)};
}

Dual cdist(const Dual& x1, const Dual& x2, double p, std::optional<int64_t> compute_mode) {
  return distances(x1, x2, p, ops::_cdist_forward::call(x1.primal, x2.primal, p, compute_mode));
}

Dual euclidean_dist(const Dual& x1, const Dual& x2) {
  return distances(x1, x2, 2, ops::_euclidean_dist::call(x1.primal, x2.primal));
}

// Of all pairs of rows of one set.
Dual pdist(const Dual& rows, double p) {
  const auto count = rows.primal.sym_size(0).guard_int(__FILE__, __LINE__);
  const Tensor pairs = at::triu_indices(count, count, 1, rows.primal.options().dtype(at::kLong));
  const auto difference = [&](const Tensor& x) {
    return x.index_select(0, pairs.select(0, 0)).sub(x.index_select(0, pairs.select(0, 1)));
  };
  Tensor lengths = ops::_pdist_forward::call(rows.primal, p);
  Tensor tangent = norm_slope(difference(rows.tangent), difference(rows.primal), lengths, p);
  return {std::move(lengths), std::move(tangent)};
}

}  // namespace

FUNCTX_RULES(jvp_distances) {
  dual_rule<ops::_cdist_forward, cdist>();
  dual_rule<ops::_euclidean_dist, euclidean_dist>();
  dual_rule<ops::_pdist_forward, pdist>();
}

}  // namespace functx
