// Views that change a tensor's own geometry. The value may be known elsewhere by its old geometry,
// to the caller of vmap for one, so the wrapper gets a new one.
#include <algorithm>
#include <numeric>

#include "batching/rule.h"

namespace functx {
namespace {

template <class Op, class View, class Signature = typename Op::schema>
struct InplaceView;

template <class Op, class View, class... Args>
struct InplaceView<Op, View, Tensor&(Tensor&, Args...)> {
  static Tensor& call(const LevelPtr& level, Tensor& self, Args... args) {
    const Tensor untaped = make_batched(level, unwrap_batched(level, self));
    // The batching rule of the view finds the physical arguments.
    const Tensor view = View::call(untaped, args...);
    self.unsafeGetTensorImpl()->shallow_copy_from(view.getIntrusivePtr());
    return self;
  }
};

// as_strided_ takes and returns its tensor as const.
template <class Op, class View, class... Args>
struct InplaceView<Op, View, const Tensor&(const Tensor&, Args...)> {
  static const Tensor& call(const LevelPtr& level, const Tensor& self, Args... args) {
    const Tensor untaped = make_batched(level, unwrap_batched(level, self));
    const Tensor view = View::call(untaped, args...);
    self.unsafeGetTensorImpl()->shallow_copy_from(view.getIntrusivePtr());
    return self;
  }
};

template <class Op, class View>
void inplace_view() {
  Rules<Op>::batching = &InplaceView<Op, View>::call;
  install_kernel<Op>();
}

[[noreturn]] void refuse(const char* name) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "functx.vmap: ", name,
                              " replaces the memory of a tensor, and a tensor inside vmap has none "
                              "of its own. Use an operator that returns a new tensor, such as "
                              "new_empty, reshape or copy_.");
}

template <class Op, class Signature = typename Op::schema>
struct Refused;

template <class Op, class Result, class... Args>
struct Refused<Op, Result(Args...)> {
  static Result call(const LevelPtr&, Args...) { refuse(Op::name); }
};

template <class... Ops>
void refused() {
  ((Rules<Ops>::batching = &Refused<Ops>::call, install_kernel<Ops>()), ...);
}

// The elements of each example in the order in which they lie in memory: [B, n]. A view if they lie
// next to each other.
Tensor in_order_of_memory(const Tensor& value) {
  std::vector<int64_t> dims(value.dim());
  std::iota(dims.begin(), dims.end(), 0);
  const auto strides = value.sym_strides();
  std::stable_sort(dims.begin() + 1, dims.end(),
                   [&](int64_t a, int64_t b) { return strides[a] > strides[b]; });
  const c10::SymInt elements = c10::multiply_integers(value.sym_sizes().slice(1));
  return value.permute(dims).reshape_symint({value.sym_size(0), elements});
}

// Rows of elements as examples of this size, which lie in memory as `format` says.
Tensor as_examples(const Tensor& rows, c10::SymIntArrayRef size, at::MemoryFormat format) {
  c10::SymDimVector shape(size.begin(), size.end());
  shape.insert(shape.begin(), rows.sym_size(0));
  if (format == at::MemoryFormat::Contiguous) {
    return rows.view_symint(shape);
  }
  // The dimension of channels comes last in memory.
  std::rotate(shape.begin() + 2, shape.begin() + 3, shape.end());
  return rows.view_symint(shape).movedim(-1, 2);
}

Tensor resized(const Tensor& value, c10::SymIntArrayRef size, at::MemoryFormat format) {
  const c10::SymInt wanted = c10::multiply_integers(size);
  const Tensor rows = in_order_of_memory(value);
  if (rows.sym_size(1) >= wanted) {
    return as_examples(rows.narrow_symint(1, 0, wanted), size, format);
  }
  const Tensor more = value.new_empty_symint({rows.sym_size(0), wanted});
  more.narrow_symint(1, 0, rows.sym_size(1)).copy_(rows);
  return as_examples(more, size, format);
}

// PyTorch's changes the memory that a tensor has. That of an example is part of that of the batch,
// and so an example that grows gets memory of its own.
const Tensor& resize_(const LevelPtr& level, const Tensor& self, c10::SymIntArrayRef size,
                      std::optional<at::MemoryFormat> format) {
  const Batched x = unwrap_batched(level, self);
  if (self.sym_sizes() == size) {
    return self;
  }
  Batched result{x.value.alias(), x.is_batched};
  if (!x.is_batched) {
    ops::resize_::call(result.value, size, format);
  } else {
    const auto order = format.value_or(at::MemoryFormat::Contiguous);
    const size_t rank = order == at::MemoryFormat::ChannelsLast     ? 4
                        : order == at::MemoryFormat::ChannelsLast3d ? 5
                                                                    : size.size();
    TORCH_CHECK(order != at::MemoryFormat::Preserve, "resize_: unsupported memory format ", order);
    TORCH_CHECK(size.size() == rank, "resize_: the memory format ", order, " is one of tensors of ",
                rank, " dimensions, but the size has ", size.size());
    for (const c10::SymInt& length : size) {
      TORCH_CHECK(length >= 0, "resize_: the size ", size, " has a negative length");
    }
    result.value = resized(x.value, size, order);
  }
  const Tensor wrapped = make_batched(level, std::move(result));
  self.unsafeGetTensorImpl()->shallow_copy_from(wrapped.getIntrusivePtr());
  return self;
}

const Tensor& resize_as_(const LevelPtr& level, const Tensor& self, const Tensor& other,
                         std::optional<at::MemoryFormat> format) {
  if (format == at::MemoryFormat::Preserve) {
    format = other.suggest_memory_format();
  }
  if (at_level<BatchedTensor>(self, *level) == nullptr) {
    return ops::resize_::call(self, other.sym_sizes(), format);
  }
  return resize_(level, self, other.sym_sizes(), format);
}

}  // namespace

FUNCTX_RULES(inplace_views) {
  inplace_view<ops::t_, ops::t>();
  inplace_view<ops::transpose_, ops::transpose_int>();
  inplace_view<ops::squeeze_, ops::squeeze>();
  inplace_view<ops::squeeze__dim, ops::squeeze_dim>();
  inplace_view<ops::squeeze__dims, ops::squeeze_dims>();
  inplace_view<ops::unsqueeze_, ops::unsqueeze>();
  inplace_view<ops::as_strided_, ops::as_strided>();
  inplace_view<ops::detach_, ops::detach>();
  refused<ops::set_, ops::set__source_Tensor, ops::set__source_Storage,
          ops::set__source_Storage_storage_offset>();
  Rules<ops::resize_>::batching = resize_;
  install_kernel<ops::resize_>();
  Rules<ops::resize_as_>::batching = resize_as_;
  install_kernel<ops::resize_as_>();
}

}  // namespace functx
