// Reading and writing at indices or under masks, which have no tangents themselves.
#include "forward_ad/families.h"

namespace functx {
namespace {

Dual masked_fill_tensor(const Dual& self, const Dual& mask, const Dual& value) {
  Tensor primal = ops::masked_fill_Tensor::call(self.primal, mask.primal, value.primal);
  Tensor tangent =
      value.has_tangent()
          ? ops::masked_fill_Tensor::call(tangent_or_zeros(self), mask.primal, value.tangent)
          : ops::masked_fill_Scalar::call(self.tangent, mask.primal, 0);
  return conform(std::move(tangent), std::move(primal));
}

Dual index_fill_tensor(const Dual& self, int64_t dim, const Dual& index, const Dual& value) {
  Tensor primal = ops::index_fill_int_Tensor::call(self.primal, dim, index.primal, value.primal);
  Tensor tangent = value.has_tangent()
                       ? ops::index_fill_int_Tensor::call(tangent_or_zeros(self), dim, index.primal,
                                                          value.tangent)
                       : ops::index_fill_int_Scalar::call(self.tangent, dim, index.primal, 0);
  return {std::move(primal), std::move(tangent)};
}

}  // namespace

FUNCTX_RULES(jvp_reading_at_indices) {
  linear_in_first<ops::gather, ops::index_select, ops::index_Tensor, ops::_unsafe_index_Tensor,
                  ops::take, ops::masked_select, ops::embedding_dense_backward>();
}

FUNCTX_RULES(jvp_writing_at_indices) {
  linear_in<ops::scatter_src, 0, 3>();
  linear_in<ops::scatter_add, 0, 3>();
  linear_in<ops::index_add, 0, 3>();
  linear_in<ops::index_copy, 0, 3>();
  linear_in<ops::index_put, 0, 2>();
  linear_in<ops::_unsafe_index_put, 0, 2>();
  linear_in<ops::put, 0, 2>();
  linear_in<ops::masked_scatter, 0, 2>();
  linear_in<ops::select_scatter, 0, 1>();
  linear_in<ops::slice_scatter, 0, 1>();
  linear_in<ops::diagonal_scatter, 0, 1>();
  linear_in_first<ops::masked_scatter_backward>();
}

FUNCTX_RULES(jvp_filling) {
  partials<ops::masked_fill_Scalar,
           [](auto& t, auto&, auto&, auto& mask, auto&) { return t.masked_fill(mask, 0); }>();
  partials<ops::scatter_value, [](auto& t, auto&, auto&, auto dim, auto& index, auto&) {
    return t.scatter(dim, index, 0);
  }>();
  partials<ops::index_fill_int_Scalar, [](auto& t, auto&, auto&, auto dim, auto& index, auto&) {
    return t.index_fill(dim, index, 0);
  }>();
  dual_rule<ops::masked_fill_Tensor, masked_fill_tensor>();
  dual_rule<ops::index_fill_int_Tensor, index_fill_tensor>();
}

}  // namespace functx
