// Operators whose results have no tangent.
#include "forward_ad/families.h"

namespace functx {

FUNCTX_RULES(jvp_piecewise_constant) {
  nondifferentiable<ops::sign, ops::signbit, ops::ceil, ops::floor, ops::round, ops::round_decimals,
                    ops::trunc, ops::floor_divide, ops::floor_divide_Scalar>();
}

FUNCTX_RULES(jvp_predicates) {
  nondifferentiable<ops::eq_Tensor, ops::ne_Tensor, ops::lt_Tensor, ops::le_Tensor, ops::gt_Tensor,
                    ops::ge_Tensor, ops::eq_Scalar, ops::ne_Scalar, ops::lt_Scalar, ops::le_Scalar,
                    ops::gt_Scalar, ops::ge_Scalar>();
  nondifferentiable<ops::logical_and, ops::logical_or, ops::logical_xor, ops::logical_not,
                    ops::bitwise_not, ops::isnan, ops::isinf, ops::isposinf, ops::isneginf>();
  nondifferentiable<ops::all, ops::all_dim, ops::all_dims, ops::any, ops::any_dim, ops::any_dims,
                    ops::equal, ops::_local_scalar_dense>();
}

FUNCTX_RULES(jvp_indices) {
  nondifferentiable<ops::argmax, ops::argmin, ops::nonzero, ops::count_nonzero,
                    ops::count_nonzero_dim_IntList, ops::searchsorted_Tensor, ops::bucketize_Tensor,
                    ops::isin_Tensor_Tensor>();
}

// Samples, which PyTorch takes for constants whatever their distribution depends on.
FUNCTX_RULES(jvp_normal) {
  nondifferentiable<ops::normal_Tensor_Tensor, ops::normal_Tensor_float,
                    ops::normal_float_Tensor>();
}

// Autograd asks for these when it pairs tangents with primals; the answers are tensors of no level
// but this one's.
FUNCTX_RULES(jvp_likeness) {
  nondifferentiable<ops::zeros_like, ops::ones_like, ops::empty_like, ops::full_like,
                    ops::rand_like, ops::randn_like, ops::randint_like, ops::randint_like_low_dtype,
                    ops::bernoulli, ops::bernoulli_p, ops::new_zeros, ops::new_ones, ops::new_empty,
                    ops::new_full, ops::new_empty_strided,
                    ops::_new_zeros_with_same_feature_meta>();
}

}  // namespace functx
