// Sparse tensors in COO layout: the batch is one sparse tensor, whose first sparse dimension
// numbers the examples.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>

#include "batching/dims.h"
#include "batching/rewrite.h"
#include "batching/rule.h"
#include "core/each_of.h"
#include "reverse_ad/values.h"

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

bool is_sparse(const Tensor& tensor) { return tensor.layout() == at::kSparse; }

Batched to_dense(const Batched& self, std::optional<at::ScalarType> dtype,
                 std::optional<bool> masked_grad) {
  return {ops::_to_dense::call(self.value, dtype, masked_grad), self.is_batched};
}

Batched coalesce(const Batched& self) { return {self.value.coalesce(), self.is_batched}; }

bool is_coalesced(const Batched& self) { return self.value.is_coalesced(); }

int64_t sparse_dim(const Batched& self) {
  return self.value.sparse_dim() - static_cast<int64_t>(self.is_batched);
}

int64_t dense_dim(const Batched& self) { return self.value.dense_dim(); }

// Whether each of the examples has this many entries; `numbers` are those of the examples, for each
// entry in order.
bool have_equally_many(const Tensor& numbers, int64_t examples, int64_t each) {
  const HideFrom levels;
  const Tensor expected = at::arange(examples, numbers.options()).unsqueeze(1);
  return numbers.unflatten(-1, {examples, each}).eq(expected).all().item<bool>();
}

// Entries [B * n, ...] of a coalesced batch, which lie in the order of the examples, as [B, n,
// ...].
Tensor entries_of_each(const Tensor& batch, const Tensor& entries) {
  const int64_t size = batch.size(0);
  const int64_t each = each_of(entries.size(0), size);
  TORCH_CHECK(each * size == entries.size(0) &&
                  have_equally_many(plain_value(batch.indices()[0]), size, each),
              "functx.vmap: the examples of a sparse tensor have different numbers of entries, so "
              "that these are no batch. Call to_dense() instead.");
  return entries.unflatten(0, {size, each});
}

Batched values(const Batched& self) {
  const Tensor entries = self.value.values();
  return {self.is_batched ? entries_of_each(self.value, entries) : entries, self.is_batched};
}

Batched indices(const Batched& self) {
  const Tensor where = self.value.indices();
  if (!self.is_batched) {
    return {where, false};
  }
  return {entries_of_each(self.value, where.slice(0, 1).t()).transpose(1, 2), true};
}

Batched sum(const Batched& self, at::IntArrayRef dims) {
  if (!self.is_batched) {
    return {ops::_sparse_sum_dim::call(self.value, dims), false};
  }
  std::vector<int64_t> physical;
  for (const int64_t dim : dims) {
    physical.push_back(at::maybe_wrap_dim(dim, self.logical_dim()) + 1);
  }
  const Tensor sums = ops::_sparse_sum_dim::call(self.value, physical);
  // Of one example there are no sparse dimensions left.
  return {is_sparse(sums) && sums.sparse_dim() == 1 ? sums.to_dense() : sums, true};
}

Batched sparse_mask(const Batched& self, const Batched& mask) {
  const auto size = common_batch_size({&self, &mask});
  if (!size) {
    return {ops::sparse_mask::call(self.value, mask.value), false};
  }
  return {ops::sparse_mask::call(ensure_batched(self, *size), ensure_batched(mask, *size)), true};
}

bool is_sparse_wrapper(const Tensor& tensor) {
  return as_wrapper(tensor) != nullptr && is_sparse(tensor);
}

// Which of its arguments is sparse, PyTorch asks the C++ class.
std::optional<Tensor> product(const LevelPtr&, bool, const Tensor& a, const Tensor& b) {
  return is_sparse_wrapper(a) || is_sparse_wrapper(b) ? std::make_optional(ops::mm::call(a, b))
                                                      : std::nullopt;
}

std::optional<Tensor> add_product(const LevelPtr&, bool, const Tensor& self, const Tensor& a,
                                  const Tensor& b, const at::Scalar& beta,
                                  const at::Scalar& alpha) {
  if (!is_sparse_wrapper(a) && !is_sparse_wrapper(b)) {
    return std::nullopt;
  }
  return self.mul(beta).add(ops::mm::call(a, b), alpha);
}

}  // namespace

FUNCTX_RULES(sparse) {
  batching_rule<ops::_to_sparse, to_sparse>();
  batching_rule<ops::_to_sparse_sparse_dim, to_sparse_dim>();
  batching_rule<ops::_sparse_coo_tensor_with_dims_and_tensors, from_indices_and_values>();
  batching_rule<ops::_to_dense, to_dense>();
  batching_rule<ops::_coalesce, coalesce>();
  batching_rule<ops::is_coalesced, is_coalesced>();
  batching_rule<ops::sparse_dim, sparse_dim>();
  batching_rule<ops::dense_dim, dense_dim>();
  batching_rule<ops::values, values>();
  batching_rule<ops::indices, indices>();
  batching_rule<ops::_sparse_sum_dim, sum>();
  batching_rule<ops::sparse_mask, sparse_mask>();
  rewritten<ops::_sparse_mm, product>();
  rewritten<ops::_sparse_addmm, add_product>();
}

}  // namespace functx
