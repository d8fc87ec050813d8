// Operators that are linear in their tensor arguments: on the tangents they do what they do on the
// primals.
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

// The dtypes of the parts may differ, and that of a part without tangent counts for the whole.
template <class Op>
Dual join(const std::vector<Dual>& parts, int64_t dim) {
  std::vector<Tensor> primals, tangents;
  primals.reserve(parts.size());
  tangents.reserve(parts.size());
  for (const Dual& part : parts) {
    primals.push_back(part.primal);
    tangents.push_back(tangent_or_zeros(part));
  }
  return conform(Op::call(tangents, dim), Op::call(primals, dim));
}

Dual constant_pad(const Dual& self, c10::SymIntArrayRef pad, const at::Scalar& value) {
  return {ops::constant_pad_nd::call(self.primal, pad, value),
          ops::constant_pad_nd::call(self.tangent, pad, 0)};
}

// The tangent may have other strides, with which it can't be a view.
Dual unsafe_view(const Dual& self, c10::SymIntArrayRef size) {
  return {ops::_unsafe_view::call(self.primal, size), self.tangent.reshape_symint(size), false};
}

Dual nansum(const Dual& self, at::OptionalIntArrayRef dim, bool keepdim,
            std::optional<at::ScalarType> dtype) {
  const Tensor counted = self.tangent.masked_fill(self.primal.isnan(), 0);
  return {ops::nansum::call(self.primal, dim, keepdim, dtype),
          ops::sum_dim_IntList::call(counted, dim, keepdim, dtype)};
}

}  // namespace

FUNCTX_RULES(jvp_linear) {
  dual_rule<ops::add_Tensor, add>();
  dual_rule<ops::sub_Tensor, sub>();
  dual_rule<ops::add_Scalar, add_scalar<ops::add_Scalar>>();
  dual_rule<ops::sub_Scalar, add_scalar<ops::sub_Scalar>>();
  dual_rule<ops::cat, join<ops::cat>>();
  dual_rule<ops::stack, join<ops::stack>>();
  dual_rule<ops::constant_pad_nd, constant_pad>();
  dual_rule<ops::_unsafe_view, unsafe_view>();
  dual_rule<ops::nansum, nansum>();
  linear<ops::neg, ops::clone, ops::_to_copy, ops::sum, ops::sum_dim_IntList, ops::mean,
         ops::mean_dim, ops::cumsum, ops::flip, ops::roll, ops::rot90, ops::tril, ops::triu,
         ops::trace, ops::diag_embed, ops::repeat, ops::_conj_physical, ops::_reshape_copy,
         ops::unsafe_split_Tensor, ops::unsafe_split_with_sizes>();
  linear<ops::_fft_r2c, ops::_fft_c2r, ops::_fft_c2c>();
}

FUNCTX_RULES(jvp_padding) {
  linear<ops::reflection_pad1d, ops::reflection_pad2d, ops::reflection_pad3d,
         ops::replication_pad1d, ops::replication_pad2d, ops::replication_pad3d>();
  linear_in_first<ops::reflection_pad1d_backward, ops::reflection_pad2d_backward,
                  ops::reflection_pad3d_backward, ops::replication_pad1d_backward,
                  ops::replication_pad2d_backward, ops::replication_pad3d_backward>();
}

// What autograd puts in place of a view when it goes back.
FUNCTX_RULES(jvp_view_backward) {
  linear<ops::select_backward, ops::slice_backward, ops::diagonal_backward, ops::unfold_backward>();
}

}  // namespace functx
