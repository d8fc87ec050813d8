// Operators that are linear in their tensor arguments: on the tangents they do what they do on the
// primals.
#include <ATen/ops/alias.h>

#include "forward_ad/conform.h"
#include "forward_ad/families.h"

namespace functx {
namespace {

// self + alpha * other; either may broadcast or be promoted on its own.
Dual add(const Dual& self, const Dual& other, const at::Scalar& alpha) {
  Tensor primal = ops::add_Tensor::call(self.primal, other.primal, alpha);
  if (self.has_tangent() && other.has_tangent()) {
    Tensor tangent = ops::add_Tensor::call(self.tangent, other.tangent, alpha);
    return conform(std::move(tangent), std::move(primal));
  }
  if (self.has_tangent()) {
    return conform(self.tangent, std::move(primal));
  }
  return conform(alpha.equal(1) ? other.tangent : other.tangent.mul(alpha), std::move(primal));
}

Dual sub(const Dual& self, const Dual& other, const at::Scalar& alpha) {
  Tensor primal = ops::sub_Tensor::call(self.primal, other.primal, alpha);
  if (self.has_tangent() && other.has_tangent()) {
    Tensor tangent = ops::sub_Tensor::call(self.tangent, other.tangent, alpha);
    return conform(std::move(tangent), std::move(primal));
  }
  if (self.has_tangent()) {
    return conform(self.tangent, std::move(primal));
  }
  return conform(alpha.equal(1) ? other.tangent.neg() : other.tangent.mul(alpha).neg(),
                 std::move(primal));
}

// Adding a constant leaves the tangent as it is.
template <class Op>
Dual add_scalar(const Dual& self, const at::Scalar& other, const at::Scalar& alpha) {
  return conform(self.tangent, Op::call(self.primal, other, alpha));
}

Tensor copy_(const Dual&, const Dual& source, bool) { return source.tangent; }

template <class... Rest>
Tensor no_tangent(const Dual&, const Rest&...) {
  return {};
}

}  // namespace

FUNCTX_RULES(jvp_linear) {
  dual_rule<ops::add_Tensor, add>();
  dual_rule<ops::sub_Tensor, sub>();
  dual_rule<ops::add_Scalar, add_scalar<ops::add_Scalar>>();
  dual_rule<ops::sub_Scalar, add_scalar<ops::sub_Scalar>>();
  linear<ops::neg, ops::clone, ops::_to_copy, ops::sum, ops::sum_dim_IntList, ops::mean,
         ops::mean_dim, ops::cumsum, ops::cat, ops::stack, ops::flip, ops::roll, ops::tril,
         ops::triu, ops::index_select, ops::_unsafe_view, ops::constant_pad_nd>();
  multilinear<ops::mul_Tensor, ops::mm, ops::mv, ops::bmm, ops::dot>();
}

FUNCTX_RULES(jvp_views) {
  linear_view<ops::alias, ops::t, ops::transpose_int, ops::permute, ops::expand, ops::view,
              ops::unsqueeze, ops::squeeze, ops::squeeze_dim, ops::squeeze_dims, ops::select_int,
              ops::slice_Tensor, ops::diagonal, ops::unbind_int, ops::split_Tensor,
              ops::split_with_sizes, ops::unfold, ops::_conj, ops::_reshape_alias>();
  nondifferentiable<ops::detach>();
}

FUNCTX_RULES(jvp_inplace) {
  inplace<ops::add__Tensor, ops::add_Tensor>();
  inplace<ops::sub__Tensor, ops::sub_Tensor>();
  inplace<ops::mul__Tensor, ops::mul_Tensor>();
  inplace_rule<ops::copy_, copy_>();
  inplace_rule<ops::zero_, no_tangent<>>();
  inplace_rule<ops::fill__Scalar, no_tangent<at::Scalar>>();
}

// Autograd asks for these when it pairs tangents with primals; the answers are tensors of no level
// but this one's.
FUNCTX_RULES(jvp_likeness) {
  nondifferentiable<ops::zeros_like, ops::ones_like, ops::empty_like, ops::full_like,
                    ops::new_zeros, ops::new_ones, ops::new_empty, ops::new_full,
                    ops::new_empty_strided, ops::_new_zeros_with_same_feature_meta>();
}

}  // namespace functx
