// Operators that decompose by themselves and are called often: a typed kernel saves them the
// boxing.
#include <ATen/Operators.h>

#include "core/kernel.h"

namespace functx {

namespace ops = at::_ops;

namespace {

template <class... Ops>
void decompose() {
  (install_kernel<Ops>(Coverage::Decomposition), ...);
}

}  // namespace

FUNCTX_RULES(composites_views) {
  decompose<ops::reshape, ops::flatten_using_ints, ops::expand_as, ops::view_as, ops::chunk,
            ops::narrow, ops::movedim_int, ops::numpy_T, ops::mT, ops::contiguous, ops::conj,
            ops::resolve_conj, ops::unflatten_int, ops::size_int>();
}

FUNCTX_RULES(composites_products) {
  decompose<ops::linear, ops::matmul, ops::outer, ops::inner, ops::einsum, ops::tensordot>();
}

FUNCTX_RULES(composites_pointwise) {
  decompose<ops::square, ops::max_other, ops::min_other, ops::to_dtype, ops::to_dtype_layout,
            ops::type_as, ops::where_ScalarSelf, ops::where_ScalarOther, ops::where_Scalar,
            ops::var_dim, ops::std_dim, ops::relu6, ops::selu>();
}

FUNCTX_RULES(composites_nn) {
  decompose<ops::softmax_int, ops::log_softmax_int, ops::cross_entropy_loss, ops::nll_loss_nd,
            ops::layer_norm, ops::group_norm, ops::batch_norm, ops::conv1d, ops::conv2d,
            ops::max_pool2d, ops::adaptive_avg_pool2d, ops::dropout, ops::l1_loss, ops::pad>();
}

}  // namespace functx
