// Determinants. Their derivatives are made of minors, which are there for any matrix, but PyTorch
// has them from the inverse: those of a singular matrix, or of one that is almost singular and
// differentiated more than once, are computed here in another way.
#include <ATen/Dispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/real.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "forward_ad/factors.h"
#include "forward_ad/inplace.h"
#include "reverse_ad/revised.h"
#include "reverse_ad/values.h"

namespace functx {
namespace {

using Factored = std::tuple<Tensor, Tensor, Tensor>;

// ---- which matrices ----

double epsilon(const Tensor& x) {
  const auto type = c10::toRealValueType(x.scalar_type());
  return type == at::kDouble ? std::numeric_limits<double>::epsilon()
                             : std::numeric_limits<float>::epsilon();
}

// A minor of order k that is had from the inverse has lost the factor ratio ** (1 - k) in
// precision, where `ratio` is that of the smallest to the largest singular value. The first one
// loses nothing, since determinant and inverse have the same error, unless the matrix is singular.
double smallest_ratio(const Tensor& matrix, int64_t order) {
  return order < 2 ? 0 : std::pow(epsilon(matrix), 0.4 / static_cast<double>(order - 1));
}

// PyTorch has another formula for a determinant that is small, if its gradient is recorded, which
// takes singular values to be different. And one that is too small to be a number is as good as
// zero.
double smallest_size(const Tensor& matrix, int64_t order) {
  return order < 2 ? std::numeric_limits<double>::min() : 100 * epsilon(matrix);
}

// One of `count` determinants in a row, by the factors, which are `stride` apart.
template <class Number>
bool any_singular(const Tensor& det, const Tensor& lu, int64_t count, int64_t stride, double ratio,
                  double size) {
  const auto* value = det.const_data_ptr<Number>();
  const auto* factors = lu.const_data_ptr<Number>();
  const int64_t n = lu.size(-1), row = lu.stride(-2) + lu.stride(-1);
  for (int64_t i = 0; i < count; ++i) {
    double smallest = INFINITY, largest = 0;
    for (int64_t k = 0; k < n; ++k) {
      const double pivot = std::abs(factors[i * stride + k * row]);
      smallest = std::min(smallest, pivot);
      largest = std::max(largest, pivot);
    }
    const double result = std::abs(value[i]);
    if (std::isfinite(result) && (smallest <= ratio * largest || result < size)) {
      return true;
    }
  }
  return false;
}

// Whether a derivative of this order of one of the determinants would be wrong. `lu` are factors.
bool any_singular(const Tensor& det, const Tensor& lu, int64_t order) {
  // A copy is not to be made as a wrapper.
  const HideFrom levels;
  Tensor factors = plain_value(lu), results = plain_value(det);
  if (!has_numbers(factors) || factors.numel() == 0) {
    return false;
  }
  if (!factors.is_cpu()) {
    factors = factors.detach().cpu();
    results = results.detach().cpu();
  }
  if (!results.is_contiguous()) {
    results = results.detach().contiguous();
  }
  if (factors.dim() > 3) {
    factors = factors.detach().flatten(0, -3);
  }
  return AT_DISPATCH_FLOATING_AND_COMPLEX_TYPES(factors.scalar_type(), "det", [&] {
    return any_singular<scalar_t>(results, factors, results.numel(),
                                  factors.dim() == 3 ? factors.stride(0) : 0,
                                  smallest_ratio(factors, order), smallest_size(factors, order));
  });
}

// ---- how ----

// Without a division (R. S. Bird, "A simple division-free algorithm for computing determinants",
// 2011), so that derivatives are right whatever the matrix. For small ones.
Tensor det_without_division(const Tensor& a) {
  const int64_t n = a.size(-1);
  Tensor x = a;
  for (int64_t step = 1; step < n; ++step) {
    const Tensor diagonal = x.diagonal(0, -2, -1);
    const Tensor below = diagonal.narrow(-1, 1, n - 1).flip(-1).cumsum(-1).flip(-1);
    const Tensor sums = at::cat({below, at::zeros_like(diagonal.narrow(-1, 0, 1))}, -1);
    x = x.triu(1).sub(sums.diag_embed(0, -2, -1)).matmul(a);
  }
  const Tensor corner = x.select(-1, 0).select(-1, 0);
  return n % 2 == 0 ? corner.neg() : corner;
}

// By the logarithm, whose gradient is the inverse, for matrices that have one. PyTorch's gradient
// of the determinant of some examples is a choice between this and a formula that takes singular
// values to be different, and where they aren't, has gradients that are no numbers. `value` is the
// determinant, which a logarithm is less exact than.
Tensor det_of_regular(const Tensor& a, const Tensor& value) {
  const auto [sign, logabsdet] = ops::linalg_slogdet::call(a);
  const Tensor growth = logabsdet.sub(constant(logabsdet)).exp();
  const Tensor det = constant(value).mul(growth);
  return a.is_complex() ? det.mul(sign.mul(constant(sign).conj())) : det;
}

// How many singular values, of the matrix that has the most, count as zero.
int64_t largest_nullity(const Tensor& singular_values, int64_t order) {
  const Tensor plain = plain_value(singular_values);
  const double ratio =
      std::max(smallest_ratio(plain, order), static_cast<double>(plain.size(-1)) * epsilon(plain));
  const Tensor is_zero = plain.le(plain.narrow(-1, 0, 1).mul(ratio));
  return is_zero.sum(-1).max().item<int64_t>();
}

// In the bases of its singular vectors, which are constants here, the matrix is almost diagonal:
// large values first, then those close to zero. Its determinant is that of the large block, scaled
// to the unit matrix, times that of the Schur complement, which is small in every sense.
Tensor det_of_singular(const Tensor& a, int64_t order) {
  const auto [u, s, vh] = at::linalg_svd(constant(a), /*full_matrices=*/true);
  const int64_t n = s.size(-1);
  const int64_t small = largest_nullity(s, order), large = n - small;
  const Tensor phase = ops::linalg_det::call(u).mul(ops::linalg_det::call(vh));
  const Tensor b = u.mH().matmul(a).matmul(vh.mH());
  if (large == 0) {
    return phase.mul(det_without_division(b));
  }
  const Tensor sizes = s.narrow(-1, 0, large);
  const Tensor rows = b.narrow(-2, 0, large).div(sizes.unsqueeze(-1));
  const Tensor block = rows.narrow(-1, 0, large);
  const Tensor det =
      phase.mul(sizes.prod(-1)).mul(det_of_regular(block, ops::linalg_det::call(constant(block))));
  if (small == 0) {
    return det;
  }
  const Tensor beside = ops::linalg_solve::call(block, rows.narrow(-1, large, small), true);
  const Tensor below = b.narrow(-2, large, small);
  const Tensor complement =
      below.narrow(-1, large, small).sub(below.narrow(-1, 0, large).matmul(beside));
  return det.mul(det_without_division(complement));
}

std::optional<Factored> recorded_det(const Factored& result, const Tensor& a) {
  const auto& [det, lu, pivots] = result;
  const int64_t order = active_derivatives();
  if (any_singular(det, lu, order)) {
    return Factored{det_of_singular(a, order), lu, pivots};
  }
  if (order < 2 || lu.sym_numel() == 0 || !has_numbers(plain_value(lu))) {
    return std::nullopt;
  }
  return Factored{det_of_regular(a, det), lu, pivots};
}

// ---- forward mode ----

// For determinants PyTorch factors the transpose of a matrix whose rows are contiguous.
bool factors_transpose(const Tensor& a) { return a.is_contiguous() && !a.is_complex(); }

// The trace of A^-1 A'.
Tensor relative_growth(const Dual& a) {
  const Tensor change = std::get<0>(
      ops::linalg_solve_ex::call(a.primal, a.tangent, /*left=*/true, /*check_errors=*/false));
  return change.diagonal(0, -2, -1).sum(-1);
}

Factored det(const LevelPtr& level, const Tensor& matrix) {
  const Dual a = unwrap_dual(level, matrix);
  auto [result, lu, pivots] = Native<ops::_linalg_det>::call(matrix);
  const Tensor factors = unwrap_dual(level, lu).primal;
  // This level is not among the active ones here.
  const int64_t order = active_derivatives() + 1;
  if (a.has_tangent() && any_singular(unwrap_dual(level, result).primal, factors, order)) {
    return {det_of_singular(untaped(level, matrix), order), make_dual(level, {factors, {}}),
            pivots};
  }
  if (a.has_tangent() && detail::may_be_saved(a.primal)) {
    const Tensor primal = unwrap_dual(level, result).primal;
    result = make_dual(level, {primal, primal.mul(relative_growth(a))});
  }
  return {result, saved_factors(level, matrix, factors, factors_transpose(a.primal)), pivots};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> slogdet(const LevelPtr& level, const Tensor& matrix) {
  const Dual a = unwrap_dual(level, matrix);
  auto [sign, logabsdet, lu, pivots] = Native<ops::_linalg_slogdet>::call(matrix);
  if (a.has_tangent() && detail::may_be_saved(a.primal)) {
    const Tensor growth = relative_growth(a);
    const Tensor primal = unwrap_dual(level, sign).primal;
    if (growth.is_complex()) {
      sign = make_dual(level, {primal, primal.mul(growth.sub(at::real(growth)))});
    }
    logabsdet = make_dual(level, {unwrap_dual(level, logabsdet).primal,
                                  growth.is_complex() ? at::real(growth) : growth});
  }
  return {sign, logabsdet,
          saved_factors(level, matrix, unwrap_dual(level, lu).primal, factors_transpose(a.primal)),
          pivots};
}

}  // namespace

FUNCTX_RULES(jvp_determinants) {
  Rules<ops::_linalg_det>::dual = &det;
  Rules<ops::_linalg_slogdet>::dual = &slogdet;
  install_kernel<ops::_linalg_slogdet>();
}

FUNCTX_RULES(gradients_of_determinants) { revised<ops::_linalg_det, recorded_det>(); }

}  // namespace functx
