// Eigenvalues and singular values, with or without the vectors.
#include <ATen/ops/eye.h>
#include <ATen/ops/real.h>

#include "forward_ad/conform.h"
#include "forward_ad/native_rule.h"

namespace functx {
namespace {

// What V^-1 A' V says of the eigenvalues, and of how the eigenvectors mix. PyTorch's formulas
// divide by the zero between an eigenvalue and itself, which their derivatives do not survive.
struct Mixing {
  Mixing(const Tensor& values, const Tensor& change)
      : value_tangent(change.diagonal(0, -2, -1)),
        factors(change.sub(value_tangent.diag_embed(0, -2, -1)).div(gaps(values))) {}

  Tensor value_tangent;
  Tensor factors;

 private:
  static Tensor gaps(const Tensor& values) {
    const Tensor gap = values.unsqueeze(-2).sub(values.unsqueeze(-1));
    return gap.add(at::eye(values.size(-1), values.options()));
  }
};

// ---- Hermitian matrices ----

// Nobody asks for the vectors of a matrix that they don't see a gradient of, but its tangent needs
// them.
std::tuple<Dual, Dual> eigh(const Dual& a, c10::string_view triangle, bool compute_vectors) {
  auto [values, vectors] = ops::_linalg_eigh::call(a.primal, triangle, true);
  const Tensor change = vectors.mH().matmul(a.tangent).matmul(vectors);
  const Mixing mixing(values, change.add(change.mH()).div(2));
  const Tensor value_tangent = mixing.value_tangent;
  Tensor vector_tangent = compute_vectors ? vectors.matmul(mixing.factors) : Tensor();
  return {conform(value_tangent.is_complex() ? at::real(value_tangent) : value_tangent, values),
          Dual{vectors, std::move(vector_tangent)}};
}

// ---- all square matrices ----

// Eigenvectors have length one, and a phase that a change does not turn.
std::tuple<Dual, Dual> eig(const Dual& a) {
  auto [values, vectors] = ops::linalg_eig::call(a.primal);
  const Tensor tangent = a.tangent.to(vectors.scalar_type());
  const Mixing mixing(values,
                      ops::linalg_solve::call(vectors, tangent.matmul(vectors), /*left=*/true));
  const Tensor turned = vectors.matmul(mixing.factors);
  const Tensor growth = real_inner(vectors, turned).sum(-2, /*keepdim=*/true);
  Tensor vector_tangent = turned.sub(vectors.mul(growth));
  return {Dual{std::move(values), mixing.value_tangent, false},
          Dual{std::move(vectors), std::move(vector_tangent)}};
}

Dual eigvals(const Dual& a) { return std::get<0>(eig(a)); }

// ---- singular values ----

std::tuple<Tensor, Tensor, Tensor> svd(const LevelPtr&, const Tensor& a, bool full_matrices, bool,
                                       std::optional<c10::string_view> driver) {
  return Native<ops::_linalg_svd>::call(a, full_matrices, true, driver);
}

}  // namespace

FUNCTX_RULES(jvp_spectra) {
  dual_rule<ops::_linalg_eigh, eigh>();
  dual_rule<ops::linalg_eig, eig>();
  dual_rule<ops::_linalg_eigvals, eigvals>();
  Rules<ops::_linalg_svd>::dual = &svd;
  install_kernel<ops::_linalg_svd>();
}

}  // namespace functx
