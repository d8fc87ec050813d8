#include "batching/dims.h"

#include <ATen/ops/stack.h>

namespace functx {

at::DimVector physical_dims(const Batched& x, at::IntArrayRef dims) {
  at::DimVector physical;
  physical.reserve(dims.size());
  for (const int64_t dim : dims) {
    physical.push_back(physical_dim(x, dim));
  }
  return physical;
}

at::DimVector all_physical_dims(const Batched& x) {
  at::DimVector dims;
  for (int64_t dim = x.is_batched ? 1 : 0; dim < x.value.dim(); ++dim) {
    dims.push_back(dim);
  }
  return dims;
}

c10::SymDimVector physical_size(const Batched& x, c10::SymIntArrayRef size) {
  c10::SymDimVector physical;
  physical.reserve(size.size() + 1);
  if (x.is_batched) {
    physical.push_back(x.value.sym_size(0));
  }
  physical.insert(physical.end(), size.begin(), size.end());
  return physical;
}

std::optional<int64_t> common_batch_size(std::initializer_list<const Batched*> values) {
  for (const Batched* x : values) {
    if (x->is_batched) {
      return batch_size(*x);
    }
  }
  return std::nullopt;
}

Tensor align_rank(const Batched& x, int64_t rank) {
  const int64_t missing = rank - x.logical_dim();
  if (!x.is_batched || missing <= 0) {
    return x.value;
  }
  auto size = x.value.sym_sizes().vec();
  size.insert(size.begin() + 1, missing, c10::SymInt(1));
  return x.value.view_symint(size);
}

Tensor ensure_batched(const Batched& x, int64_t size) {
  if (x.is_batched) {
    return x.value;
  }
  if (x.value.is_sparse()) [[unlikely]] {
    return at::stack(std::vector<Tensor>(size, x.value));
  }
  auto sizes = x.value.sym_sizes().vec();
  sizes.insert(sizes.begin(), c10::SymInt(size));
  return x.value.expand_symint(sizes);
}

Tensor materialize_batched(const Batched& x, int64_t size) {
  return x.is_batched ? x.value : ensure_batched(x, size).clone(at::MemoryFormat::Contiguous);
}

Tensor fold_batch_into(const Tensor& value, int64_t dim) {
  return value.movedim(0, dim).flatten(dim, dim + 1);
}

Tensor unfold_batch_from(const Tensor& folded, int64_t dim, int64_t batch_size) {
  return folded.unflatten(dim, {batch_size, each_of(folded.size(dim), batch_size)}).movedim(dim, 0);
}

}  // namespace functx
