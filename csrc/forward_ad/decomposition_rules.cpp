// Matrix decompositions: by the native fallback, with what it leaves out.
#include "core/boxed.h"
#include "forward_ad/rule.h"

namespace functx {
namespace {

template <class Op, class Signature = typename Op::schema>
struct Native;

// The native fallback for `Op`.
template <class Op, class Result, class... Args>
struct Native<Op, Result(Args...)> {
  static Result call(Args... args) {
    static const auto fallback = c10::BoxedKernel::makeFromFunction<&boxed_kernel>();
    return c10::impl::BoxedKernelWrapper<Result(Args...)>::call(fallback, traits_of<Op>().handle,
                                                                c10::DispatchKeySet(kBackKey),
                                                                std::forward<Args>(args)...);
  }
};

// ---- spectra without vectors ----

// PyTorch's forward formulas need the vectors, and PyTorch asks for them only where it sees a
// gradient of its own.
std::tuple<Tensor, Tensor, Tensor> svd(const LevelPtr&, const Tensor& a, bool full_matrices, bool,
                                       std::optional<c10::string_view> driver) {
  return Native<ops::_linalg_svd>::call(a, full_matrices, true, driver);
}

std::tuple<Tensor, Tensor> eigh(const LevelPtr&, const Tensor& a, c10::string_view triangle, bool) {
  return Native<ops::_linalg_eigh>::call(a, triangle, true);
}

Tensor eigvals(const LevelPtr&, const Tensor& a) {
  return std::get<0>(Native<ops::linalg_eig>::call(a));
}

// ---- by LU ----

// The factorization, which a backward without graph reads, has a tangent too.
Tensor lu_of(const LevelPtr& level, const Dual& a) {
  if (!a.has_tangent()) {
    return std::get<0>(ops::linalg_lu_factor_ex::call(a.primal, true, false));
  }
  return std::get<0>(Native<ops::linalg_lu_factor_ex>::call(make_dual(level, a), true, false));
}

// For determinants PyTorch factors the transpose of a matrix whose rows are contiguous.
Tensor lu_for_determinant(const LevelPtr& level, const Tensor& a) {
  const Dual dual = unwrap_dual(level, a);
  if (!dual.primal.is_contiguous() || dual.primal.is_complex()) {
    return lu_of(level, dual);
  }
  const Tensor tangent = dual.has_tangent() ? dual.tangent.mT() : Tensor();
  return lu_of(level, {dual.primal.mT(), tangent, false});
}

std::tuple<Tensor, Tensor, Tensor> det(const LevelPtr& level, const Tensor& a) {
  auto [result, lu, pivots] = Native<ops::_linalg_det>::call(a);
  return {result, lu_for_determinant(level, a), pivots};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> slogdet(const LevelPtr& level, const Tensor& a) {
  auto [sign, logabsdet, lu, pivots] = Native<ops::_linalg_slogdet>::call(a);
  return {sign, logabsdet, lu_for_determinant(level, a), pivots};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> solve(const LevelPtr& level, const Tensor& a,
                                                 const Tensor& b, bool left, bool check_errors) {
  auto [result, lu, pivots, info] = Native<ops::_linalg_solve_ex>::call(a, b, left, check_errors);
  const Dual dual = unwrap_dual(level, a);
  return {result, dual.has_tangent() ? lu_of(level, dual) : lu, pivots, info};
}

}  // namespace

FUNCTX_RULES(jvp_by_lu) {
  Rules<ops::_linalg_det>::dual = &det;
  install_kernel<ops::_linalg_det>();
  Rules<ops::_linalg_slogdet>::dual = &slogdet;
  install_kernel<ops::_linalg_slogdet>();
  Rules<ops::_linalg_solve_ex>::dual = &solve;
  install_kernel<ops::_linalg_solve_ex>();
}

FUNCTX_RULES(jvp_spectra) {
  Rules<ops::_linalg_svd>::dual = &svd;
  install_kernel<ops::_linalg_svd>();
  Rules<ops::_linalg_eigh>::dual = &eigh;
  install_kernel<ops::_linalg_eigh>();
  Rules<ops::_linalg_eigvals>::dual = &eigvals;
  install_kernel<ops::_linalg_eigvals>();
}

}  // namespace functx
