// Views: the tangent of a view is the same view of the tangent.
#include <ATen/ops/alias.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/view_size.h"
#include "forward_ad/families.h"

namespace functx {
namespace {

// Whether each element has a place of its own. Examples that lie interleaved are not dense.
bool is_non_overlapping(const Tensor& tensor) {
  if (tensor.is_non_overlapping_and_dense()) {
    return true;
  }
  if (tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides()) {
    return false;
  }
  std::vector<std::pair<int64_t, int64_t>> dims;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) > 1) {
      dims.emplace_back(tensor.stride(d), tensor.size(d));
    }
  }
  std::sort(dims.begin(), dims.end());
  int64_t last = 0;
  return std::all_of(dims.begin(), dims.end(), [&](const auto& dim) {
    const bool is_beyond = dim.first > last;
    last += dim.first * (dim.second - 1);
    return is_beyond;
  });
}

// Views that depend on strides, which the tangent need not share: it is laid out like the primal
// first, for all who look at it. Nobody can write to a tensor that was expanded, so the tangent of
// its view may be a copy; one of the same shape, for whatever strides were asked for.
Tensor tangent_for_view(DualTensor& wrapper) {
  const Tensor& tangent = wrapper.tangent();
  if (tangent.sym_strides() == wrapper.primal().sym_strides()) {
    return tangent;
  }
  return is_non_overlapping(wrapper.root()->primal()) ? wrapper.tangent_in_layout_of_primal()
                                                      : Tensor();
}

// Strides and offset mean the storage of the primal. The tangent has one of its own, which need not
// begin where the primal's does.
struct StridedTangent {
  Tensor tangent;
  std::optional<c10::SymInt> offset;
};

StridedTangent strided_tangent(DualTensor& wrapper, const std::optional<c10::SymInt>& offset) {
  if (!wrapper.tangent().defined()) {
    return {};
  }
  const Tensor tangent = tangent_for_view(wrapper);
  TORCH_CHECK(tangent.defined(),
              "functx.jvp: as_strided of a tensor that was expanded, or is part of a larger one, "
              "would look at a tangent with other strides. Call contiguous() on it first.");
  if (!offset.has_value()) {
    return {tangent, std::nullopt};
  }
  return {tangent, *offset - wrapper.primal().sym_storage_offset() + tangent.sym_storage_offset()};
}

Dual strided(DualTensor& wrapper, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
             const std::optional<c10::SymInt>& offset) {
  const auto [tangent, tangent_offset] = strided_tangent(wrapper, offset);
  return {
      ops::as_strided::call(wrapper.primal(), size, stride, offset),
      tangent.defined() ? ops::as_strided::call(tangent, size, stride, tangent_offset) : Tensor()};
}

Tensor as_strided(const LevelPtr& level, const Tensor& self, c10::SymIntArrayRef size,
                  c10::SymIntArrayRef stride, std::optional<c10::SymInt> offset) {
  auto& wrapper = *at_level<DualTensor>(self, *level);
  return make_dual_view(level, self, strided(wrapper, size, stride, offset));
}

const Tensor& as_strided_(const LevelPtr& level, const Tensor& self, c10::SymIntArrayRef size,
                          c10::SymIntArrayRef stride, std::optional<c10::SymInt> offset) {
  auto& wrapper = *at_level<DualTensor>(self, *level);
  Dual view = strided(wrapper, size, stride, offset);
  wrapper.replace(std::move(view.primal), std::move(view.tangent), /*is_part=*/true);
  return self;
}

const Tensor& resize_(const LevelPtr& level, const Tensor& self, c10::SymIntArrayRef size,
                      std::optional<at::MemoryFormat> format) {
  auto& wrapper = *at_level<DualTensor>(self, *level);
  TORCH_CHECK(!wrapper.tangent().defined() || self.sym_sizes() == size,
              "functx.jvp: resize_ cannot give a tensor of shape ", self.sym_sizes(),
              " that has a tangent the shape ", size,
              ". Use reshape, slices or torch.nn.functional.pad, which make a new tensor.");
  Tensor primal = wrapper.primal();
  ops::resize_::call(primal, size, format);
  wrapper.replace(primal, wrapper.tangent(), /*is_part=*/true);
  return self;
}

const Tensor& resize_as_(const LevelPtr& level, const Tensor& self, const Tensor& other,
                         std::optional<at::MemoryFormat> format) {
  if (format == at::MemoryFormat::Preserve) {
    format = other.suggest_memory_format();
  }
  if (at_level<DualTensor>(self, *level) == nullptr) {
    return ops::resize_::call(self, other.sym_sizes(), format);
  }
  return resize_(level, self, other.sym_sizes(), format);
}

template <class Op, class Signature = typename Op::schema>
struct LayoutView;

template <class Op, class... Args>
struct LayoutView<Op, Tensor(const Tensor&, Args...)> {
  static Tensor call(const LevelPtr& level, const Tensor& self, Args... args) {
    auto& wrapper = *at_level<DualTensor>(self, *level);
    Dual view{Op::call(wrapper.primal(), args...), {}};
    if (const Tensor& tangent = wrapper.tangent(); tangent.defined()) {
      const Tensor same_layout =
          can_be_viewed(tangent, args...) ? tangent : tangent_for_view(wrapper);
      view.tangent =
          same_layout.defined() ? Op::call(same_layout, args...) : copied(tangent, args...);
    }
    return make_dual_view(level, self, std::move(view));
  }

 private:
  // As it lies; where strides are asked for too, it has to lie like the primal.
  static bool can_be_viewed(const Tensor& tangent, c10::SymIntArrayRef size) {
    return has_view(tangent, size);
  }
  static bool can_be_viewed(const Tensor&, const auto&...) { return false; }

  static Tensor copied(const Tensor& tangent, const auto& size, const auto&...) {
    return tangent.contiguous().view_symint(size);
  }
  static Tensor copied(const Tensor& tangent) { return Op::call(tangent.contiguous()); }
};

template <class... Ops>
void layout_view() {
  ((Rules<Ops>::dual = &LayoutView<Ops>::call, install_kernel<Ops>()), ...);
}

}  // namespace

FUNCTX_RULES(jvp_views) {
  linear_view<ops::alias, ops::t, ops::transpose_int, ops::permute, ops::expand, ops::unsqueeze,
              ops::squeeze, ops::squeeze_dim, ops::squeeze_dims, ops::select_int, ops::slice_Tensor,
              ops::diagonal, ops::unbind_int, ops::split_Tensor, ops::split_with_sizes, ops::unfold,
              ops::_conj, ops::_neg_view, ops::view_as_real, ops::lift_fresh>();
  layout_view<ops::view, ops::_reshape_alias, ops::view_as_complex>();
  Rules<ops::as_strided>::dual = &as_strided;
  install_kernel<ops::as_strided>();
  nondifferentiable<ops::detach>();
}

FUNCTX_RULES(jvp_inplace_views) {
  inplace_view<ops::t_, ops::t>();
  inplace_view<ops::transpose_, ops::transpose_int>();
  inplace_view<ops::squeeze_, ops::squeeze>();
  inplace_view<ops::squeeze__dim, ops::squeeze_dim>();
  inplace_view<ops::squeeze__dims, ops::squeeze_dims>();
  inplace_view<ops::unsqueeze_, ops::unsqueeze>();
  Rules<ops::as_strided_>::dual = &as_strided_;
  install_kernel<ops::as_strided_>();
  Rules<ops::resize_>::dual = &resize_;
  install_kernel<ops::resize_>();
  Rules<ops::resize_as_>::dual = &resize_as_;
  install_kernel<ops::resize_as_>();
}

}  // namespace functx
