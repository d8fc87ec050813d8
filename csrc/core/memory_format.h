// Strides of dimensions of size one are free, so that a tensor can lie in memory as channels_last
// has it without having its strides.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/MemoryFormat.h>

#include <algorithm>

namespace functx {

// The same tensor with the strides of its memory format. PyTorch's kernel for the gradients of
// batch_norm takes one that is channels_last by its places in memory, and not by its strides, for
// contiguous.
inline at::Tensor with_strides_of_format(const at::Tensor& x) {
  if (x.is_contiguous(x.suggest_memory_format())) {
    return x;
  }
  for (const auto format : {at::MemoryFormat::ChannelsLast, at::MemoryFormat::ChannelsLast3d}) {
    if (x.dim() == (format == at::MemoryFormat::ChannelsLast ? 4 : 5) && x.is_contiguous(format)) {
      const auto strides = format == at::MemoryFormat::ChannelsLast
                               ? c10::get_channels_last_strides_2d(x.sizes())
                               : c10::get_channels_last_strides_3d(x.sizes());
      return x.as_strided(x.sizes(), strides);
    }
  }
  return x;
}

// A contiguous tensor with the strides that a new one would have. The kernel of PyTorch for the
// gradients of grouped convolutions takes the strides of a group for its places.
inline at::Tensor with_default_strides(const at::Tensor& x) {
  const auto sizes = x.sizes();
  const bool has_free_strides = std::find(sizes.begin(), sizes.end(), 1) != sizes.end();
  return has_free_strides && x.is_contiguous() ? x.flatten().view(sizes) : x;
}

}  // namespace functx
