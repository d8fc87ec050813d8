// In-place operators: those with a functional form take its rule.
#include "forward_ad/families.h"

namespace functx {
namespace {

constexpr auto no_tangent = [](const auto&...) { return Tensor(); };

Tensor copy_(const Dual&, const Dual& source, bool) { return source.tangent; }
Tensor fill_(const Dual&, const Dual& value) { return value.tangent; }

}  // namespace

FUNCTX_RULES(jvp_inplace_unary) {
  inplace<ops::abs_, ops::abs>();
  inplace<ops::acos_, ops::acos>();
  inplace<ops::acosh_, ops::acosh>();
  inplace<ops::asin_, ops::asin>();
  inplace<ops::asinh_, ops::asinh>();
  inplace<ops::atan_, ops::atan>();
  inplace<ops::atanh_, ops::atanh>();
  inplace<ops::celu_, ops::celu>();
  inplace<ops::clamp_, ops::clamp>();
  inplace<ops::clamp__Tensor, ops::clamp_Tensor>();
  inplace<ops::clamp_min_, ops::clamp_min>();
  inplace<ops::clamp_min__Tensor, ops::clamp_min_Tensor>();
  inplace<ops::clamp_max_, ops::clamp_max>();
  inplace<ops::clamp_max__Tensor, ops::clamp_max_Tensor>();
  inplace<ops::cos_, ops::cos>();
  inplace<ops::cosh_, ops::cosh>();
  inplace<ops::deg2rad_, ops::deg2rad>();
  inplace<ops::digamma_, ops::digamma>();
  inplace<ops::elu_, ops::elu>();
  inplace<ops::erf_, ops::erf>();
  inplace<ops::erfc_, ops::erfc>();
  inplace<ops::erfinv_, ops::erfinv>();
  inplace<ops::exp_, ops::exp>();
  inplace<ops::exp2_, ops::exp2>();
  inplace<ops::expm1_, ops::expm1>();
  inplace<ops::frac_, ops::frac>();
  inplace<ops::hardsigmoid_, ops::hardsigmoid>();
  inplace<ops::hardswish_, ops::hardswish>();
  inplace<ops::hardtanh_, ops::hardtanh>();
  inplace<ops::i0_, ops::i0>();
  inplace<ops::leaky_relu_, ops::leaky_relu>();
  inplace<ops::lgamma_, ops::lgamma>();
  inplace<ops::log_, ops::log>();
  inplace<ops::log10_, ops::log10>();
  inplace<ops::log1p_, ops::log1p>();
  inplace<ops::log2_, ops::log2>();
  inplace<ops::logit_, ops::logit>();
  inplace<ops::mish_, ops::mish>();
  inplace<ops::nan_to_num_, ops::nan_to_num>();
  inplace<ops::neg_, ops::neg>();
  inplace<ops::rad2deg_, ops::rad2deg>();
  inplace<ops::reciprocal_, ops::reciprocal>();
  inplace<ops::relu_, ops::relu>();
  inplace<ops::rsqrt_, ops::rsqrt>();
  inplace<ops::sgn_, ops::sgn>();
  inplace<ops::sigmoid_, ops::sigmoid>();
  inplace<ops::silu_, ops::silu>();
  inplace<ops::sin_, ops::sin>();
  inplace<ops::sinc_, ops::sinc>();
  inplace<ops::sinh_, ops::sinh>();
  inplace<ops::sqrt_, ops::sqrt>();
  inplace<ops::tan_, ops::tan>();
  inplace<ops::tanh_, ops::tanh>();
  inplace<ops::threshold_, ops::threshold>();
  inplace<ops::tril_, ops::tril>();
  inplace<ops::triu_, ops::triu>();
  inplace<ops::ceil_, ops::ceil>();
  inplace<ops::floor_, ops::floor>();
  inplace<ops::round_, ops::round>();
  inplace<ops::trunc_, ops::trunc>();
  inplace<ops::sign_, ops::sign>();
}

FUNCTX_RULES(jvp_inplace_arithmetic) {
  inplace<ops::div__Tensor, ops::div_Tensor>();
  inplace<ops::div__Scalar, ops::div_Scalar>();
  inplace<ops::div__Tensor_mode, ops::div_Tensor_mode>();
  inplace<ops::div__Scalar_mode, ops::div_Scalar_mode>();
  inplace<ops::add__Tensor, ops::add_Tensor>();
  inplace<ops::add__Scalar, ops::add_Scalar>();
  inplace<ops::sub__Tensor, ops::sub_Tensor>();
  inplace<ops::sub__Scalar, ops::sub_Scalar>();
  inplace<ops::mul__Tensor, ops::mul_Tensor>();
  inplace<ops::mul__Scalar, ops::mul_Scalar>();
  inplace<ops::addcmul_, ops::addcmul>();
  inplace<ops::addcdiv_, ops::addcdiv>();
  inplace<ops::addmm_, ops::addmm>();
  inplace<ops::addmv_, ops::addmv>();
  inplace<ops::addbmm_, ops::addbmm>();
  inplace<ops::addr_, ops::addr>();
  inplace<ops::baddbmm_, ops::baddbmm>();
  inplace<ops::atan2_, ops::atan2>();
  inplace<ops::copysign__Tensor, ops::copysign_Tensor>();
  inplace<ops::copysign__Scalar, ops::copysign_Scalar>();
  inplace<ops::fmod__Scalar, ops::fmod_Scalar>();
  inplace<ops::fmod__Tensor, ops::fmod_Tensor>();
  inplace<ops::hypot_, ops::hypot>();
  inplace<ops::lerp__Scalar, ops::lerp_Scalar>();
  inplace<ops::lerp__Tensor, ops::lerp_Tensor>();
  inplace<ops::pow__Scalar, ops::pow_Tensor_Scalar>();
  inplace<ops::pow__Tensor, ops::pow_Tensor_Tensor>();
  inplace<ops::remainder__Scalar, ops::remainder_Scalar>();
  inplace<ops::remainder__Tensor, ops::remainder_Tensor>();
  inplace<ops::xlogy__Tensor, ops::xlogy_Tensor>();
  inplace<ops::xlogy__Scalar_Other, ops::xlogy_Scalar_Other>();
  inplace<ops::cumsum_, ops::cumsum>();
  inplace<ops::cumprod_, ops::cumprod>();
}

FUNCTX_RULES(jvp_inplace_indexing) {
  inplace<ops::masked_fill__Scalar, ops::masked_fill_Scalar>();
  inplace<ops::masked_fill__Tensor, ops::masked_fill_Tensor>();
  inplace<ops::masked_scatter_, ops::masked_scatter>();
  inplace<ops::scatter__src, ops::scatter_src>();
  inplace<ops::scatter__value, ops::scatter_value>();
  inplace<ops::scatter_add_, ops::scatter_add>();
  inplace<ops::index_add_, ops::index_add>();
  inplace<ops::index_copy_, ops::index_copy>();
  inplace<ops::index_put_, ops::index_put>();
  inplace<ops::index_fill__int_Scalar, ops::index_fill_int_Scalar>();
  inplace<ops::index_fill__int_Tensor, ops::index_fill_int_Tensor>();
  inplace<ops::put_, ops::put>();
}

FUNCTX_RULES(jvp_overwriting) {
  inplace_rule<ops::copy_, copy_>();
  inplace_rule<ops::fill__Tensor, fill_>();
  inplace_rule<ops::fill__Scalar, no_tangent>();
  inplace_rule<ops::zero_, no_tangent>();
}

FUNCTX_RULES(jvp_drawing) {
  inplace_rule<ops::bernoulli__Tensor, no_tangent>();
  inplace_rule<ops::bernoulli__float, no_tangent>();
  inplace_rule<ops::cauchy_, no_tangent>();
  inplace_rule<ops::exponential_, no_tangent>();
  inplace_rule<ops::geometric_, no_tangent>();
  inplace_rule<ops::log_normal_, no_tangent>();
  inplace_rule<ops::normal_, no_tangent>();
  inplace_rule<ops::random_, no_tangent>();
  inplace_rule<ops::random__from, no_tangent>();
  inplace_rule<ops::random__to, no_tangent>();
  inplace_rule<ops::uniform_, no_tangent>();
}

}  // namespace functx
