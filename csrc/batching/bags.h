// Where the bags of embedding_bag lie among the indices.
#pragma once

#include <ATen/ops/arange.h>
#include <ATen/ops/searchsorted.h>

namespace functx {

// The bag of each position: the last that starts at or before it.
inline at::Tensor bag_of_each_position(const at::Tensor& indices, const at::Tensor& offsets) {
  const at::Tensor positions = at::arange(indices.sym_size(0), offsets.options());
  return at::searchsorted(offsets, positions, /*out_int32=*/false, /*right=*/true).sub(1);
}

}  // namespace functx
