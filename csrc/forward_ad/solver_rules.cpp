// Systems of linear equations, and inverses, by factors of the matrix.
#include "forward_ad/conform.h"
#include "forward_ad/factors.h"
#include "forward_ad/inplace.h"
#include "forward_ad/native_rule.h"

namespace functx {
namespace {

// ---- by LU ----

// PyTorch's operators return factors that they take for constants. Those of `a` are it only if no
// other transform looks at `a`.
Tensor divide(const Tensor& a, const Tensor& lu, const Tensor& pivots, const Tensor& b, bool left) {
  return detail::may_be_saved(a)
             ? std::get<0>(ops::linalg_solve_ex::call(a, b, left, /*check_errors=*/false))
             : ops::linalg_lu_solve::call(lu, pivots, b, left, /*adjoint=*/false);
}

// A X' = B' - A' X, or X' A = B' - X A'.
Tensor right_side(const Dual& a, const Dual& b, const Tensor& x, bool left) {
  if (!a.has_tangent()) {
    return b.tangent;
  }
  const Tensor moved = left ? a.tangent.matmul(x) : x.matmul(a.tangent);
  return b.has_tangent() ? b.tangent.sub(moved) : moved.neg();
}

std::tuple<Tensor, Tensor, Tensor, Tensor> solve(const LevelPtr& level, const Tensor& matrix,
                                                 const Tensor& sides, bool left,
                                                 bool check_errors) {
  const Dual a = unwrap_dual(level, matrix);
  Dual b = unwrap_dual(level, sides);
  auto [x, lu, pivots, info] = ops::_linalg_solve_ex::call(a.primal, b.primal, left, check_errors);
  Tensor tangent;
  if (a.has_tangent() || b.has_tangent()) {
    const bool is_vector = x.dim() < a.primal.dim();
    const auto columns = [&](const Tensor& t) {
      return is_vector && t.defined() ? t.unsqueeze(-1) : t;
    };
    const Tensor side = right_side(a, {columns(b.primal), columns(b.tangent)}, columns(x), left);
    tangent = divide(a.primal, lu, pivots, side, left);
    tangent = is_vector ? tangent.squeeze(-1) : tangent;
  }
  return {make_dual(level, {std::move(x), std::move(tangent)}),
          saved_factors(level, matrix, lu, /*of_transpose=*/false), make_dual(level, {pivots, {}}),
          make_dual(level, {info, {}})};
}

// ---- by a triangle ----

// Only one triangle of the matrix is looked at.
std::tuple<Dual, Dual> triangular_solve(const Dual& b, const Dual& a, bool upper, bool transpose,
                                        bool unitriangular) {
  const auto solve = [&](const Tensor& sides) {
    return ops::triangular_solve::call(sides, a.primal, upper, transpose, unitriangular);
  };
  auto [x, matrix] = solve(b.primal);
  Dual change = a;
  if (a.has_tangent()) {
    const int64_t excluded = unitriangular ? 1 : 0;
    change.tangent = upper ? a.tangent.triu(excluded) : a.tangent.tril(-excluded);
    change.tangent = transpose ? change.tangent.mT() : change.tangent;
  }
  Tensor tangent = std::get<0>(solve(right_side(change, b, x, /*left=*/true)));
  // The matrix that PyTorch returns has the leading dimensions of both.
  Tensor matrix_tangent = a.has_tangent() ? a.tangent.expand_as(matrix) : a.tangent;
  return {Dual{std::move(x), std::move(tangent)},
          Dual{std::move(matrix), std::move(matrix_tangent), false}};
}

// (L L^H)^-1, of which PyTorch has another formula, which is wrong.
Dual cholesky_inverse(const Dual& factor, bool upper) {
  Tensor inverse = ops::cholesky_inverse::call(factor.primal, upper);
  const auto lower = [&](const Tensor& t) { return upper ? t.triu().mH() : t.tril(); };
  const Tensor half =
      inverse.matmul(lower(factor.tangent)).matmul(lower(factor.primal).mH()).matmul(inverse);
  return {std::move(inverse), half.add(half.mH()).neg()};
}

}  // namespace

FUNCTX_RULES(jvp_by_lu) {
  Rules<ops::_linalg_solve_ex>::dual = &solve;
  install_kernel<ops::_linalg_solve_ex>();
}

FUNCTX_RULES(jvp_by_triangle) {
  dual_rule<ops::triangular_solve, triangular_solve>();
  dual_rule<ops::cholesky_inverse, cholesky_inverse>();
}

}  // namespace functx
