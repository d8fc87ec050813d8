#include "forward_ad/conform.h"

#include <ATen/ops/real.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>

#include "core/keys.h"

namespace functx {

Dual conform(Tensor tangent, Tensor primal) {
  if (!tangent.defined() || !is_differentiable(primal)) {
    return {std::move(primal), {}};
  }
  if (tangent.scalar_type() != primal.scalar_type()) {
    tangent = tangent.to(primal.scalar_type());
  }
  const bool expands = tangent.sym_sizes() != primal.sym_sizes();
  if (expands) {
    tangent = tangent.expand_symint(primal.sym_sizes());
  }
  return {std::move(primal), std::move(tangent), !expands};
}

bool is_differentiable(const Tensor& tensor) {
  const auto type = tensor.scalar_type();
  return at::isFloatingType(type) || at::isComplexType(type);
}

namespace {

bool is_plain(const Tensor& tensor) {
  return tensor.layout() == at::kStrided && !tensor.requires_grad() &&
         !tensor.key_set().has_any(kForeignWrapperKeys | c10::DispatchKeySet(kFrontKey));
}

// Whether `sum`, which a rule has computed, can be written to with nobody noticing: no other
// tensor, tape or tracer.
bool can_take(const Tensor& sum, const Tensor& term) {
  return sum.use_count() == 1 && is_plain(sum) && is_plain(term) &&
         sum.storage().use_count() == 1 && sum.scalar_type() == term.scalar_type() &&
         sum.sizes() == term.sizes() && sum.is_non_overlapping_and_dense() &&
         !c10::impl::TorchDispatchModeTLS::any_modes_set();
}

}  // namespace

Tensor sum_of(Tensor left, Tensor right) {
  if (!left.defined() || !right.defined()) {
    return left.defined() ? left : right;
  }
  // In place, a large sum takes three quarters of the time.
  if (can_take(left, right)) {
    return left.add_(right);
  }
  return can_take(right, left) ? right.add_(left) : left.add(right);
}

Tensor tangent_or_zeros(const Dual& dual) {
  return dual.has_tangent() ? dual.tangent : at::zeros_like(dual.primal);
}

Tensor quotient_or_zero(const Tensor& numerator, const Tensor& denominator) {
  const Tensor is_zero = denominator.eq(0);
  return numerator.div(denominator.masked_fill(is_zero, 1)).masked_fill(is_zero, 0);
}

Tensor zero_unless(const Tensor& condition, const Tensor& tangent) {
  return at::where(condition, tangent, at::zeros({}, tangent.options()));
}

Tensor real_inner(const Tensor& x, const Tensor& tangent) {
  return x.is_complex() ? at::real(x.conj().mul(tangent)) : x.mul(tangent);
}

}  // namespace functx
