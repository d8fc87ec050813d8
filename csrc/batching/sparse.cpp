// Sparse tensors as results: the batch is one sparse tensor, whose first sparse dimension numbers
// the examples.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>

#include "batching/dims.h"
#include "batching/rule.h"

namespace functx {
namespace {

using Layout = std::optional<at::Layout>;

Batched to_sparse(const Batched& self, Layout layout, at::OptionalIntArrayRef blocksize,
                  std::optional<int64_t> dense_dim) {
  TORCH_CHECK(!self.is_batched || layout.value_or(at::kSparse) == at::kSparse,
              "functx.vmap: to_sparse can give a batch of tensors in COO layout only. Call it with "
              "layout=torch.sparse_coo, or on the result of vmap.");
  return {ops::_to_sparse::call(self.value, layout, blocksize, dense_dim), self.is_batched};
}

Batched to_sparse_dim(const Batched& self, int64_t sparse_dim) {
  return {ops::_to_sparse_sparse_dim::call(self.value, sparse_dim + int64_t(self.is_batched)),
          self.is_batched};
}

// Indices [n, entries] and values [entries, ...] of the examples, one after the other.
Batched from_indices_and_values(int64_t sparse_dim, int64_t dense_dim, c10::SymIntArrayRef size,
                                const Batched& indices, const Batched& values,
                                std::optional<at::ScalarType> dtype, Layout layout,
                                std::optional<at::Device> device, std::optional<bool> pinned,
                                std::optional<bool> is_coalesced) {
  const auto batch = common_batch_size({&indices, &values});
  const auto make = [&](int64_t dims, c10::SymIntArrayRef shape, const Tensor& where,
                        const Tensor& entries) {
    return ops::_sparse_coo_tensor_with_dims_and_tensors::call(
        dims, dense_dim, shape, where, entries, dtype, layout, device, pinned, is_coalesced);
  };
  if (!batch) {
    return {make(sparse_dim, size, indices.value, values.value), false};
  }
  const Tensor where = ensure_batched(indices, *batch);
  const Tensor numbers = at::arange(*batch, where.options()).view({-1, 1, 1});
  const Tensor all = at::cat({numbers.expand({-1, 1, where.size(2)}), where}, 1);
  c10::SymDimVector shape(size.begin(), size.end());
  shape.insert(shape.begin(), c10::SymInt(*batch));
  return {make(sparse_dim + 1, shape, all.movedim(1, 0).flatten(1),
               ensure_batched(values, *batch).flatten(0, 1)),
          true};
}

}  // namespace

FUNCTX_RULES(sparse) {
  batching_rule<ops::_to_sparse, to_sparse>();
  batching_rule<ops::_to_sparse_sparse_dim, to_sparse_dim>();
  batching_rule<ops::_sparse_coo_tensor_with_dims_and_tensors, from_indices_and_values>();
}

}  // namespace functx
