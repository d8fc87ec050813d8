// Operators that only look at a tensor differently.
#include <ATen/InferSize.h>
#include <ATen/core/DimVector.h>
#include <ATen/ops/squeeze.h>

#include "batching/by_loop.h"
#include "batching/dims.h"
#include "batching/rule.h"
#include "core/view_size.h"

namespace functx {
namespace {

// Operators with one dim right behind self: the dim shifts past the batch dimension.
template <class Op, class... Rest>
Batched view_at_dim(const Batched& self, int64_t dim, const Rest&... rest) {
  return {Op::call(self.value, physical_dim(self, dim), rest...), self.is_batched};
}

// A scalar example may be indexed by dim 0 and -1, as PyTorch allows; its value then has one
// dimension more while the operator runs.
Batched squeeze_dim(const Batched& self, int64_t dim) {
  if (self.logical_dim() == 0) {
    c10::maybe_wrap_dim(dim, 0);
    return {self.value.alias(), self.is_batched};
  }
  return view_at_dim<ops::squeeze_dim>(self, dim);
}

Batched squeeze_dims(const Batched& self, at::IntArrayRef dims) {
  at::DimVector physical;
  for (const int64_t dim : dims) {
    const int64_t wrapped = c10::maybe_wrap_dim(dim, self.logical_dim());
    if (self.logical_dim() > 0) {
      physical.push_back(wrapped + static_cast<int64_t>(self.is_batched));
    }
  }
  return {self.value.squeeze(physical), self.is_batched};
}

Batched squeeze(const Batched& self) {
  return {self.is_batched ? self.value.squeeze(all_physical_dims(self)) : self.value.squeeze(),
          self.is_batched};
}

Batched unsqueeze(const Batched& self, int64_t dim) {
  const int64_t physical = physical_dim(dim, self.logical_dim() + 1, self.is_batched);
  return {self.value.unsqueeze(physical), self.is_batched};
}

Batched t(const Batched& self) {
  TORCH_CHECK(self.logical_dim() <= 2,
              "t() expects a tensor with at most 2 dimensions, but self is ", self.logical_dim(),
              "D");
  return {self.logical_dim() < 2 ? self.value.alias() : self.value.transpose(-2, -1),
          self.is_batched};
}

Batched transpose(const Batched& self, int64_t dim0, int64_t dim1) {
  if (self.logical_dim() == 0) {
    c10::maybe_wrap_dim(dim0, 0);
    c10::maybe_wrap_dim(dim1, 0);
    return {self.value.alias(), self.is_batched};
  }
  return {self.value.transpose(physical_dim(self, dim0), physical_dim(self, dim1)),
          self.is_batched};
}

Batched permute(const Batched& self, at::IntArrayRef dims) {
  if (!self.is_batched) {
    return {self.value.permute(dims), false};
  }
  TORCH_CHECK(static_cast<int64_t>(dims.size()) == self.logical_dim(),
              "permute(sparse_coo): number of dimensions in the tensor input does not match the "
              "length of the desired ordering of dimensions i.e. input.dim() = ",
              self.logical_dim(), " is not equal to len(dims) = ", dims.size());
  at::DimVector physical = physical_dims(self, dims);
  physical.insert(physical.begin(), 0);
  return {self.value.permute(physical), true};
}

Batched expand(const Batched& self, c10::SymIntArrayRef size, bool implicit) {
  if (!self.is_batched) {
    return {self.value.expand_symint(size, implicit), false};
  }
  const auto rank = static_cast<int64_t>(size.size());
  TORCH_CHECK(rank >= self.logical_dim(), "expand(", self.value.sizes().slice(1), ", size=", size,
              "): the number of sizes provided (", rank,
              ") must be greater or equal to the number of dimensions in the tensor (",
              self.logical_dim(), ")");
  return {align_rank(self, rank).expand_symint(physical_size(self, size), implicit), true};
}

// The size of the value, where -1 stands for what is left in an example, also if there is none.
c10::SymDimVector viewed_size(const Batched& x, c10::SymIntArrayRef size) {
  if (!x.is_batched || x.value.sym_numel() != 0) {
    return physical_size(x, size);
  }
  const auto example = x.value.sym_sizes().slice(1);
  return physical_size(x, at::infer_size_dv(size, c10::multiply_integers(example)));
}

// A result has the layout of the operands. Where one was batched along its last dimension, the
// examples of the result are interleaved too, and cannot be viewed as those of a loop can. As long
// as nobody else knows its memory, the result may as well lie in another.
void deinterleave(const LevelPtr& level, const Tensor& self) {
  const Tensor value = unwrap_batched(level, self).value.contiguous();
  self.unsafeGetTensorImpl()->shallow_copy_from(
      make_batched(level, {value, true}).getIntrusivePtr());
}

// In a size to view, -1 stands for what is left: not for the batch dimension.
Tensor view(const LevelPtr& level, const Tensor& self, c10::SymIntArrayRef size) {
  Batched x = unwrap_batched(level, self);
  const auto physical = viewed_size(x, size);
  if (x.is_batched && !x.value.is_contiguous() && x.value.has_storage() &&
      x.value.storage().use_count() == 1 && !has_view(x.value, physical)) {
    deinterleave(level, self);
    x = unwrap_batched(level, self);
  }
  return make_batched(level, {x.value.view_symint(physical), x.is_batched});
}

Batched view_dtype(const Batched& self, at::ScalarType dtype) {
  TORCH_CHECK(self.logical_dim() > 0 || self.value.itemsize() == elementSize(dtype),
              "self.dim() cannot be 0 to view ", self.value.scalar_type(), " as ", dtype,
              " (different element sizes)");
  return {self.value.view(dtype), self.is_batched};
}

// The caller knows that an example is contiguous; the batch need not be.
Batched unsafe_view(const Batched& self, c10::SymIntArrayRef size) {
  return {self.is_batched && !self.value.is_contiguous()
              ? self.value.reshape_symint(viewed_size(self, size))
              : ops::_unsafe_view::call(self.value, viewed_size(self, size)),
          self.is_batched};
}

Batched reshape_alias(const Batched& self, c10::SymIntArrayRef size, c10::SymIntArrayRef) {
  return {self.value.reshape_symint(viewed_size(self, size)), self.is_batched};
}

Batched diagonal(const Batched& self, int64_t offset, int64_t dim1, int64_t dim2) {
  return {self.value.diagonal(offset, physical_dim(self, dim1), physical_dim(self, dim2)),
          self.is_batched};
}

template <class Op, class Sections>
std::vector<Batched> split(const Batched& self, const Sections& sections, int64_t dim) {
  std::vector<Batched> parts;
  for (Tensor& part : Op::call(self.value, sections, physical_dim(self, dim))) {
    parts.push_back({std::move(part), self.is_batched});
  }
  return parts;
}

std::vector<Batched> unbind(const Batched& self, int64_t dim) {
  std::vector<Batched> parts;
  for (Tensor& part : self.value.unbind(physical_dim(self, dim))) {
    parts.push_back({std::move(part), self.is_batched});
  }
  return parts;
}

Batched unfold(const Batched& self, int64_t dim, int64_t size, int64_t step) {
  if (self.is_batched && self.logical_dim() == 0) {
    c10::maybe_wrap_dim(dim, 0);
    return {self.value.unsqueeze(1).unfold(1, size, step).squeeze(1), true};
  }
  return view_at_dim<ops::unfold>(self, dim, size, step);
}

}  // namespace

FUNCTX_RULES(views) {
  batching_rule<ops::squeeze, squeeze>();
  batching_rule<ops::squeeze_dim, squeeze_dim>();
  batching_rule<ops::squeeze_dims, squeeze_dims>();
  batching_rule<ops::unsqueeze, unsqueeze>();
  batching_rule<ops::t, t>();
  batching_rule<ops::transpose_int, transpose>();
  batching_rule<ops::permute, permute>();
  batching_rule<ops::expand, expand>();
  level_rule<ops::view>(view);
  batching_rule<ops::view_dtype, view_dtype>();
  batching_rule<ops::_unsafe_view, unsafe_view>();
  batching_rule<ops::_reshape_alias, reshape_alias>();
  batching_rule<ops::diagonal, diagonal>();
  batching_rule<ops::split_Tensor, split<ops::split_Tensor, c10::SymInt>>();
  batching_rule<ops::split_with_sizes, split<ops::split_with_sizes, c10::SymIntArrayRef>>();
  batching_rule<ops::unsafe_split_Tensor, split<ops::unsafe_split_Tensor, c10::SymInt>>();
  batching_rule<ops::unsafe_split_with_sizes,
                split<ops::unsafe_split_with_sizes, c10::SymIntArrayRef>>();
  batching_rule<ops::unbind_int, unbind>();
  batching_rule<ops::unfold, unfold>();
  batching_rule<ops::select_int, view_at_dim<ops::select_int, c10::SymInt>>();
  batching_rule<ops::slice_Tensor, view_at_dim<ops::slice_Tensor, std::optional<c10::SymInt>,
                                               std::optional<c10::SymInt>, c10::SymInt>>();
}

}  // namespace functx
