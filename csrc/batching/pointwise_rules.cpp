// Pointwise operators that get a typed kernel because they are everywhere. All others that PyTorch
// tags as pointwise are batched by boxed_pointwise.cpp.
#include "batching/pointwise.h"

namespace functx {

namespace {

// Two reals of one dtype make a complex number: PyTorch promotes neither.
template <class Op>
Batched complex_of(const Batched& a, const Batched& b) {
  const int64_t rank = std::max(a.logical_dim(), b.logical_dim());
  return {Op::call(align_rank(a, rank), align_rank(b, rank)), a.is_batched || b.is_batched};
}

}  // namespace

FUNCTX_RULES(pointwise_complex) {
  batching_rule<ops::complex, complex_of<ops::complex>>();
  batching_rule<ops::polar, complex_of<ops::polar>>();
}

FUNCTX_RULES(pointwise_unary) {
  pointwise<ops::abs, ops::acos, ops::asin, ops::atan, ops::ceil, ops::cos, ops::cosh, ops::erf,
            ops::erfc, ops::exp, ops::exp2, ops::expm1, ops::floor, ops::lgamma, ops::log,
            ops::log10, ops::log1p, ops::log2, ops::logical_not, ops::neg, ops::reciprocal,
            ops::round, ops::rsqrt, ops::sgn, ops::sigmoid, ops::sign, ops::sin, ops::sinh,
            ops::sqrt, ops::tan, ops::tanh, ops::trunc, ops::bitwise_not, ops::isnan>();
  pointwise<ops::abs_, ops::cos_, ops::exp_, ops::floor_, ops::log_, ops::neg_, ops::reciprocal_,
            ops::round_, ops::rsqrt_, ops::sigmoid_, ops::sin_, ops::sqrt_, ops::tanh_>();
}

FUNCTX_RULES(pointwise_activation) {
  pointwise<ops::relu, ops::gelu, ops::silu, ops::mish, ops::celu, ops::elu, ops::leaky_relu,
            ops::hardtanh, ops::hardsigmoid, ops::hardswish, ops::softplus, ops::softshrink,
            ops::hardshrink, ops::threshold, ops::log_sigmoid_forward>();
  pointwise<ops::relu_, ops::silu_, ops::elu_, ops::celu_, ops::leaky_relu_, ops::hardtanh_>();
  pointwise<ops::tanh_backward, ops::sigmoid_backward, ops::threshold_backward, ops::silu_backward,
            ops::mish_backward, ops::elu_backward, ops::leaky_relu_backward, ops::hardtanh_backward,
            ops::hardsigmoid_backward, ops::hardswish_backward, ops::softplus_backward,
            ops::softshrink_backward, ops::hardshrink_backward, ops::logit_backward>();
}

FUNCTX_RULES(pointwise_arithmetic) {
  pointwise<ops::add_Tensor, ops::add_Scalar, ops::sub_Tensor, ops::sub_Scalar, ops::mul_Tensor,
            ops::mul_Scalar, ops::div_Tensor, ops::div_Scalar, ops::div_Tensor_mode,
            ops::div_Scalar_mode, ops::rsub_Tensor, ops::rsub_Scalar, ops::pow_Tensor_Scalar,
            ops::pow_Tensor_Tensor, ops::pow_Scalar, ops::remainder_Tensor, ops::remainder_Scalar,
            ops::fmod_Tensor, ops::fmod_Scalar, ops::atan2, ops::hypot, ops::logaddexp,
            ops::floor_divide, ops::floor_divide_Scalar>();
  pointwise<ops::add__Tensor, ops::add__Scalar, ops::sub__Tensor, ops::sub__Scalar,
            ops::mul__Tensor, ops::mul__Scalar, ops::div__Tensor, ops::div__Scalar,
            ops::div__Tensor_mode, ops::div__Scalar_mode, ops::pow__Scalar, ops::pow__Tensor>();
}

FUNCTX_RULES(pointwise_ternary) {
  pointwise<ops::where_self, ops::addcmul, ops::addcdiv, ops::addcmul_, ops::addcdiv_,
            ops::lerp_Tensor, ops::lerp_Scalar, ops::lerp__Tensor, ops::lerp__Scalar, ops::clamp,
            ops::clamp_, ops::clamp_Tensor, ops::clamp_min, ops::clamp_max, ops::clamp_min_Tensor,
            ops::clamp_max_Tensor, ops::clamp_min_, ops::clamp_max_, ops::masked_fill_Scalar,
            ops::masked_fill__Scalar>();
}

FUNCTX_RULES(pointwise_comparison) {
  pointwise<ops::eq_Tensor, ops::ne_Tensor, ops::lt_Tensor, ops::le_Tensor, ops::gt_Tensor,
            ops::ge_Tensor, ops::eq_Scalar, ops::ne_Scalar, ops::lt_Scalar, ops::le_Scalar,
            ops::gt_Scalar, ops::ge_Scalar, ops::maximum, ops::minimum, ops::fmax, ops::fmin,
            ops::logical_and, ops::logical_or, ops::logical_xor, ops::bitwise_and_Tensor,
            ops::bitwise_or_Tensor, ops::bitwise_xor_Tensor, ops::bitwise_and_Scalar,
            ops::bitwise_or_Scalar, ops::bitwise_xor_Scalar>();
}

// Views and copies that keep every element where it is.
FUNCTX_RULES(pointwise_alias) {
  pointwise<ops::_conj, ops::_conj_physical, ops::_neg_view, ops::detach, ops::alias,
            ops::lift_fresh>();
}

}  // namespace functx
