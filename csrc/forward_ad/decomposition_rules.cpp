// Cholesky factors, and products of Householder matrices.
#include <ATen/ops/eye.h>

#include "forward_ad/rule.h"

namespace functx {
namespace {

// L^-1 A' L^-H is what L^-1 L' and its adjoint add up to, and the former is triangular.
Dual cholesky(const Dual& a, bool upper) {
  const Tensor result = ops::cholesky::call(a.primal, upper);
  const Tensor lower = upper ? result.mH() : result;
  const auto divide = [&](const Tensor& x) {
    return ops::linalg_solve_triangular::call(lower, x, /*upper=*/false, /*left=*/true,
                                              /*unitriangular=*/false);
  };
  const Tensor change = a.tangent.add(a.tangent.mH()).div(2);
  const Tensor both = divide(divide(change).mH());
  const Tensor half = both.tril(-1).add(both.diagonal(0, -2, -1).div(2).diag_embed(0, -2, -1));
  const Tensor tangent = lower.matmul(half);
  return {result, upper ? tangent.mH() : tangent};
}

// The product of the reflections I - tau v v^H with `other`, one after the other.
Tensor reflect(const Tensor& reflectors, const Tensor& tau, Tensor other, bool left,
               bool transpose) {
  const Tensor below = reflectors.tril(-1);
  const Tensor all = below.add(at::eye(below.size(-2), below.size(-1), below.options()));
  const Tensor factors = (transpose ? tau.conj() : tau).unsqueeze(-1).unsqueeze(-1);
  const int64_t count = tau.size(-1);
  for (int64_t step = 0; step < count; ++step) {
    const int64_t k = left == transpose ? step : count - 1 - step;
    const Tensor v = all.narrow(-1, k, 1);
    const Tensor along = left ? v.matmul(v.mH().matmul(other)) : other.matmul(v).matmul(v.mH());
    other = other.sub(factors.select(-3, k).mul(along));
  }
  return other;
}

// The tangent of that product, of duals that a tape of this level does not see.
Tensor reflection_tangent(const LevelPtr& level, const Tensor& reflectors, const Tensor& tau,
                          const Tensor& other, bool left, bool transpose) {
  const auto dual = [&](const Tensor& x) { return untaped(level, x); };
  return unwrap_dual(level, reflect(dual(reflectors), dual(tau), dual(other), left, transpose))
      .tangent;
}

Tensor ormqr(const LevelPtr& level, const Tensor& reflectors, const Tensor& tau,
             const Tensor& other, bool left, bool transpose) {
  const auto primal = [&](const Tensor& x) { return unwrap_dual(level, x).primal; };
  return make_dual(
      level, {ops::ormqr::call(primal(reflectors), primal(tau), primal(other), left, transpose),
              reflection_tangent(level, reflectors, tau, other, left, transpose)});
}

Tensor householder_product(const LevelPtr& level, const Tensor& reflectors, const Tensor& tau) {
  const Tensor primal = unwrap_dual(level, reflectors).primal;
  const Tensor columns = at::eye(primal.size(-2), primal.size(-1), primal.options());
  return make_dual(level,
                   {ops::linalg_householder_product::call(primal, unwrap_dual(level, tau).primal),
                    reflection_tangent(level, reflectors, tau, columns, true, false)});
}

}  // namespace

FUNCTX_RULES(jvp_cholesky) { dual_rule<ops::cholesky, cholesky>(); }

FUNCTX_RULES(jvp_householder) {
  Rules<ops::ormqr>::dual = &ormqr;
  install_kernel<ops::ormqr>();
  Rules<ops::linalg_householder_product>::dual = &householder_product;
  install_kernel<ops::linalg_householder_product>();
}

}  // namespace functx
