// Sparse tensors in COO layout: they are linear in their entries, and the tangent has entries at
// the same places.
#include "forward_ad/families.h"
#include "reverse_ad/recordable.h"
#include "reverse_ad/recorded.h"
#include "reverse_ad/values.h"

namespace functx {
namespace {

// What `tensor` has at the places of entries.
Tensor entries_at(const Tensor& indices, const Tensor& tensor) {
  c10::List<std::optional<Tensor>> places;
  for (const Tensor& of_dim : indices.unbind()) {
    places.push_back(of_dim);
  }
  return ops::index_Tensor::call(tensor.to_dense(), places);
}

// PyTorch's gradient takes the entries of the sparse gradient by an operator without a derivative.
std::optional<Tensor> recorded_entries(int64_t sparse_dim, int64_t dense_dim,
                                       c10::SymIntArrayRef size, const Tensor& indices,
                                       const Tensor& values, std::optional<at::ScalarType> dtype,
                                       std::optional<at::Layout> layout,
                                       std::optional<at::Device> device, std::optional<bool> pinned,
                                       std::optional<bool> is_coalesced) {
  if (active_derivatives() < 2 || !needs_tape(values)) {
    return std::nullopt;
  }
  Tensor result = below_tape([&] {
    return ops::_sparse_coo_tensor_with_dims_and_tensors::call(
        sparse_dim, dense_dim, size, indices, values, dtype, layout, device, pinned, is_coalesced);
  });
  return record("sparse_coo_tensor", std::move(result), {values}, {indices},
                [](const Tensor& gradient, const std::vector<Tensor>& saved) {
                  return std::vector<Tensor>{entries_at(saved[0], gradient)};
                });
}

}  // namespace

FUNCTX_RULES(gradients_of_sparse) {
  recordable<ops::_sparse_coo_tensor_with_dims_and_tensors, recorded_entries>();
}

FUNCTX_RULES(jvp_sparse) {
  linear_in<ops::_sparse_coo_tensor_with_dims_and_tensors, 4>();
  linear_in_first<ops::_to_sparse_sparse_dim, ops::_to_dense, ops::_coalesce, ops::values,
                  ops::_values, ops::_sparse_sum, ops::_sparse_sum_dim, ops::_sparse_sum_backward,
                  ops::sparse_mask>();
  nondifferentiable<ops::indices, ops::_indices, ops::is_coalesced, ops::sparse_dim, ops::dense_dim,
                    ops::_nnz>();
}

}  // namespace functx
