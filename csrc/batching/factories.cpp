// Tensors made after the likeness of others, copies, and fills.
#include "batching/dims.h"
#include "batching/pointwise.h"
#include "batching/rewrite.h"

namespace functx {
namespace {

// Channels-last formats speak of the dimensions of one example; with a batch dimension more they
// would mean others, so only the two formats that hold for any rank are passed on.
std::optional<at::MemoryFormat> any_rank(const Batched& self,
                                         std::optional<at::MemoryFormat> format) {
  const bool is_ranked =
      format == at::MemoryFormat::ChannelsLast || format == at::MemoryFormat::ChannelsLast3d;
  return self.is_batched && is_ranked ? std::nullopt : format;
}

Batched clone(const Batched& self, std::optional<at::MemoryFormat> format) {
  return {self.value.clone(any_rank(self, format)), self.is_batched};
}

Batched to_copy(const Batched& self, std::optional<at::ScalarType> dtype,
                std::optional<at::Layout> layout, std::optional<at::Device> device,
                std::optional<bool> pinned, bool non_blocking,
                std::optional<at::MemoryFormat> format) {
  return {ops::_to_copy::call(self.value, dtype, layout, device, pinned, non_blocking,
                              any_rank(self, format)),
          self.is_batched};
}

// zeros_like, rand_like...: the options end with the memory format.
template <class Op>
Batched like(const Batched& self, std::optional<at::ScalarType> dtype,
             std::optional<at::Layout> layout, std::optional<at::Device> device,
             std::optional<bool> pinned, std::optional<at::MemoryFormat> format) {
  return {Op::call(self.value, dtype, layout, device, pinned, any_rank(self, format)),
          self.is_batched};
}

Batched full_like(const Batched& self, const at::Scalar& fill, std::optional<at::ScalarType> dtype,
                  std::optional<at::Layout> layout, std::optional<at::Device> device,
                  std::optional<bool> pinned, std::optional<at::MemoryFormat> format) {
  return {
      ops::full_like::call(self.value, fill, dtype, layout, device, pinned, any_rank(self, format)),
      self.is_batched};
}

// What is made from a batched tensor is batched, since somebody may write batched values into it.
template <class Op, class... Options>
Batched new_of_size(const Batched& self, c10::SymIntArrayRef size, const Options&... options) {
  return {Op::call(self.value, physical_size(self, size), options...), self.is_batched};
}

Batched new_empty_strided(const Batched& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                          std::optional<at::ScalarType> dtype, std::optional<at::Layout> layout,
                          std::optional<at::Device> device, std::optional<bool> pinned) {
  c10::SymDimVector strides(stride.begin(), stride.end());
  if (self.is_batched) {
    // Examples lie one after the other, each as long as its strides reach.
    c10::SymInt extent = 1;
    for (size_t i = 0; i < size.size(); ++i) {
      extent = size[i] == 0 ? c10::SymInt(0) : extent + (size[i] - 1) * stride[i];
    }
    strides.insert(strides.begin(), extent);
  }
  return {ops::new_empty_strided::call(self.value, physical_size(self, size), strides, dtype,
                                       layout, device, pinned),
          self.is_batched};
}

// A tangent for `other`, batched if either is.
Batched new_zeros_with_same_feature_meta(const Batched& self, const Batched& other,
                                         int64_t self_num_batch_dims) {
  if (!self.is_batched && !other.is_batched) {
    return {
        ops::_new_zeros_with_same_feature_meta::call(self.value, other.value, self_num_batch_dims),
        false};
  }
  const int64_t size = self.is_batched ? batch_size(self) : batch_size(other);
  const Tensor one = other.is_batched ? other.value.select(0, 0) : other.value;
  Tensor zeros = ops::_new_zeros_with_same_feature_meta::call(
      self.is_batched ? self.value.select(0, 0) : self.value, one, self_num_batch_dims);
  auto sizes = zeros.sym_sizes().vec();
  sizes.insert(sizes.begin(), c10::SymInt(size));
  return {zeros.new_zeros_symint(sizes), true};
}

// In-place writes to a value whose examples are distinct.
void copy_(const Batched& self, const Batched& source, bool non_blocking) {
  Tensor value = self.value;
  ops::copy_::call(value, align_rank(source, self.logical_dim()), non_blocking);
}

Batched copy(const Batched& self, const Batched& source, bool non_blocking) {
  Batched result{source.is_batched && !self.is_batched
                     ? materialize_batched(self, batch_size(source))
                     : self.value.clone(),
                 self.is_batched || source.is_batched};
  copy_(result, source, non_blocking);
  return result;
}

// What functionalization makes of copy_. PyTorch has no derivative for it.
std::optional<Tensor> differentiable_copy(const LevelPtr& level, bool records, const Tensor& self,
                                          const Tensor& source, bool non_blocking) {
  if (!records && level->transform == Transform::Vmap) {
    return std::nullopt;
  }
  return source.to(self.options(), non_blocking).expand_symint(self.sym_sizes()).clone();
}

void fill_tensor_(const Batched& self, const Batched& fill) { copy_(self, fill, false); }

}  // namespace

FUNCTX_RULES(factories) {
  batching_rule<ops::clone, clone>();
  batching_rule<ops::_to_copy, to_copy>();
  batching_rule<ops::zeros_like, like<ops::zeros_like>>();
  batching_rule<ops::ones_like, like<ops::ones_like>>();
  batching_rule<ops::empty_like, like<ops::empty_like>>();
  batching_rule<ops::full_like, full_like>();
  using Dtype = std::optional<at::ScalarType>;
  using Layout = std::optional<at::Layout>;
  using Device = std::optional<at::Device>;
  using Pinned = std::optional<bool>;
  batching_rule<ops::new_zeros, new_of_size<ops::new_zeros, Dtype, Layout, Device, Pinned>>();
  batching_rule<ops::new_ones, new_of_size<ops::new_ones, Dtype, Layout, Device, Pinned>>();
  batching_rule<ops::new_empty, new_of_size<ops::new_empty, Dtype, Layout, Device, Pinned>>();
  batching_rule<ops::new_full,
                new_of_size<ops::new_full, at::Scalar, Dtype, Layout, Device, Pinned>>();
  batching_rule<ops::new_empty_strided, new_empty_strided>();
  batching_rule<ops::_new_zeros_with_same_feature_meta, new_zeros_with_same_feature_meta>();
}

FUNCTX_RULES(fills) {
  pointwise<ops::zero_, ops::fill__Scalar>();
  batching_rule<ops::copy_, copy_>();
  batching_rule<ops::fill__Tensor, fill_tensor_>();
  batching_rule<ops::copy, copy>();
  rewritten<ops::copy, differentiable_copy>();
}

}  // namespace functx
