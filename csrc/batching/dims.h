// From logical to physical dimensions, and lining up values of different rank.
#pragma once

#include <ATen/WrapDimUtils.h>
#include <ATen/core/DimVector.h>

#include "batching/batched_tensor.h"
#include "core/each_of.h"

namespace functx {

// Physical position of logical dimension `dim` (negative counts from the end) of `rank`.
inline int64_t physical_dim(int64_t dim, int64_t rank, bool is_batched) {
  return c10::maybe_wrap_dim(dim, rank) + static_cast<int64_t>(is_batched);
}

inline int64_t physical_dim(const Batched& x, int64_t dim) {
  return physical_dim(dim, x.logical_dim(), x.is_batched);
}

at::DimVector physical_dims(const Batched& x, at::IntArrayRef dims);

// The dims of all logical dimensions.
at::DimVector all_physical_dims(const Batched& x);

// `size` with the batch size of `x` in front, if x is batched.
c10::SymDimVector physical_size(const Batched& x, c10::SymIntArrayRef size);

// Batch size of a batched value.
inline int64_t batch_size(const Batched& x) { return x.value.size(0); }

// The batch size of the first batched one; none may be.
std::optional<int64_t> common_batch_size(std::initializer_list<const Batched*> values);

// `x` with `rank` logical dimensions: ones are put between the batch dimension and the others.
// Unbatched values broadcast from the right as they are.
Tensor align_rank(const Batched& x, int64_t rank);

// The value with a batch dimension of `size` in front, expanded if it has none.
Tensor ensure_batched(const Batched& x, int64_t size);

// Same, and contiguous enough to be written to: no memory shared between examples.
Tensor materialize_batched(const Batched& x, int64_t size);

// Merges the batch dimension into logical dimension `dim` ([B, .., n, ..] to [.., B * n, ..]), and
// back.
Tensor fold_batch_into(const Tensor& value, int64_t dim);
Tensor unfold_batch_from(const Tensor& folded, int64_t dim, int64_t batch_size);

}  // namespace functx
