// Several tensors become one.
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>

#include "batching/dims.h"
#include "batching/rule.h"

namespace functx {
namespace {

std::optional<int64_t> batch_size_of(const std::vector<Batched>& tensors) {
  for (const Batched& tensor : tensors) {
    if (tensor.is_batched) {
      return batch_size(tensor);
    }
  }
  return std::nullopt;
}

std::vector<Tensor> values_of(const std::vector<Batched>& tensors, std::optional<int64_t> size) {
  std::vector<Tensor> values;
  values.reserve(tensors.size());
  for (const Batched& tensor : tensors) {
    values.push_back(size ? ensure_batched(tensor, *size) : tensor.value);
  }
  return values;
}

// PyTorch lets cat skip tensors of shape [0], whatever the rank of the others.
bool is_nothing(const Batched& tensor) {
  return tensor.logical_dim() == 1 && tensor.value.sym_size(tensor.is_batched ? 1 : 0) == 0;
}

Batched cat(std::vector<Batched> tensors, int64_t dim) {
  const auto size = batch_size_of(tensors);
  if (!size) {
    return {at::cat(values_of(tensors, size), dim), false};
  }
  int64_t rank = 0;
  auto dtype = tensors.front().value.scalar_type();
  for (const Batched& tensor : tensors) {
    TORCH_CHECK(tensor.logical_dim() > 0, "zero-dimensional tensor cannot be concatenated");
    rank = std::max(rank, tensor.logical_dim());
    dtype = c10::promoteTypes(dtype, tensor.value.scalar_type());
  }
  if (rank > 1) {
    tensors.erase(std::remove_if(tensors.begin(), tensors.end(), is_nothing), tensors.end());
  }
  return {at::cat(values_of(tensors, size), physical_dim(dim, rank, true)).to(dtype), true};
}

// Dimensions before `dim` are the same for all tensors, and the batch is one more.
Batched chunk_cat(const std::vector<Batched>& tensors, int64_t dim, int64_t chunks) {
  const auto size = batch_size_of(tensors);
  const bool is_batched = size.has_value();
  const int64_t physical =
      is_batched && !tensors.empty() ? physical_dim(dim, tensors.front().logical_dim(), true) : dim;
  return {ops::_chunk_cat::call(values_of(tensors, size), physical, chunks), is_batched};
}

Batched stack(const std::vector<Batched>& tensors, int64_t dim) {
  const auto size = batch_size_of(tensors);
  if (!size) {
    return {at::stack(values_of(tensors, size), dim), false};
  }
  const int64_t rank = tensors.front().logical_dim() + 1;
  return {at::stack(values_of(tensors, size), physical_dim(dim, rank, true)), true};
}

// Blocks of rows, padded to the width of all.
Batched block_diag(const std::vector<Batched>& tensors) {
  const auto size = batch_size_of(tensors);
  if (!size) {
    return {ops::block_diag::call(values_of(tensors, size)), false};
  }
  std::vector<Tensor> blocks;
  int64_t width = 0;
  for (const Batched& tensor : tensors) {
    TORCH_CHECK(tensor.logical_dim() <= 2,
                "block_diag: Input tensors must have 2 or fewer "
                "dimensions, but one has ",
                tensor.logical_dim());
    blocks.push_back(align_rank({ensure_batched(tensor, *size), true}, 2));
    width += blocks.back().size(2);
  }
  int64_t left = 0;
  for (Tensor& block : blocks) {
    const int64_t columns = block.size(2);
    block = ops::constant_pad_nd::call(
        block, c10::SymDimVector{c10::SymInt(left), c10::SymInt(width - left - columns)}, 0);
    left += columns;
  }
  return {at::cat(blocks, 1), true};
}

}  // namespace

FUNCTX_RULES(joining) {
  batching_rule<ops::_chunk_cat, chunk_cat>();
  batching_rule<ops::cat, cat>();
  batching_rule<ops::stack, stack>();
  batching_rule<ops::block_diag, block_diag>();
}

}  // namespace functx
