#include "forward_ad/dual_tensor.h"

#include <ATen/ops/_new_zeros_with_same_feature_meta.h>
#include <ATen/ops/view_as_complex.h>
#include <ATen/ops/view_as_real.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "core/alias.h"
#include "core/lift.h"
#include "core/registry.h"

namespace functx {
namespace {

// The memory of `base_tangent`, without the conjugate or negative bit by which `base` looks at its
// own, as numbers of the type of `view`, real for a part of complex ones or the other way round.
Tensor reinterpret(const Tensor& base_tangent, const Tensor& base, const Tensor& view) {
  Tensor memory = base.is_conj() ? base_tangent.conj() : base_tangent;
  memory = base.is_neg() ? memory._neg_view() : memory;
  return base.is_complex() && !view.is_complex() ? at::view_as_real(memory) : memory;
}

// `view` looks at `base` by strides: the tangent that looks at `base_tangent` in the same way.
Tensor same_view(const Tensor& base_tangent, const Tensor& base, const Tensor& view) {
  const Tensor memory = reinterpret(base_tangent, base, view);
  // Offsets and strides count elements, of which a complex number has two.
  const int64_t base_scale = base.is_complex() && !view.is_complex() ? 2 : 1;
  const int64_t view_scale = view.is_complex() && !base.is_complex() ? 2 : 1;
  const auto offset = memory.sym_storage_offset() + view.sym_storage_offset() * view_scale -
                      base.sym_storage_offset() * base_scale;
  auto sizes = view.sym_sizes().vec();
  auto strides = view.sym_strides().vec();
  if (view_scale == 2) {
    std::transform(strides.begin(), strides.end(), strides.begin(), [](auto& s) { return s * 2; });
    sizes.emplace_back(2);
    strides.emplace_back(1);
  }
  Tensor tangent = memory.as_strided_symint(sizes, strides, offset);
  tangent = view_scale == 2 ? at::view_as_complex(tangent) : tangent;
  tangent = view.is_conj() ? tangent.conj() : tangent;
  return view.is_neg() ? tangent._neg_view() : tangent;
}

// Whether what are views of `primal` are views of `tangent` too, by the same strides.
bool has_layout_of(const Tensor& tangent, const Tensor& primal) {
  return tangent.scalar_type() == primal.scalar_type() &&
         tangent.sym_sizes() == primal.sym_sizes() &&
         tangent.sym_strides() == primal.sym_strides() && tangent.is_conj() == primal.is_conj() &&
         tangent.is_neg() == primal.is_neg();
}

// Whether `written` can be copied into `target`: whatever differs between the examples of a batch
// in `written` must do so in `target`, and a tangent must find a place.
bool can_hold(const Tensor& target, const Tensor& written) {
  const Wrapper* wrapper = as_wrapper(written);
  if (wrapper == nullptr) {
    constexpr auto torch_func_batched = c10::DispatchKey::FuncTorchBatched;
    return target.key_set().has(torch_func_batched) || !written.key_set().has(torch_func_batched);
  }
  const Tensor inner = wrapper->values()[0];
  const Wrapper* outer = as_wrapper(target);
  if (outer == nullptr || outer->level() != wrapper->level()) {
    // What is the same for every example fits into what is no batch; a tangent needs a dual.
    return wrapper->level()->transform == Transform::Vmap && wrapper->is_its_value() &&
           can_hold(target, inner);
  }
  return (wrapper->level()->transform == Transform::Jvp || !outer->is_its_value() ||
          wrapper->is_its_value()) &&
         can_hold(outer->values()[0], inner);
}

const AtLoad class_is_known([] {
  wrapper_classes[1] = &typeid(DualTensor);
  set_lifting(Transform::Jvp, [](const LevelPtr& level, const Tensor& value) {
    return make_dual(level, {value, {}});
  });
});

}  // namespace

DualTensor::DualTensor(LevelPtr level, Dual dual, Pointer base)
    : Wrapper(std::move(level), kTransform, dual.primal),
      primal_(std::move(dual.primal)),
      tangent_(std::move(dual.tangent)),
      base_tangent_(base != nullptr ? base->tangent_ : Tensor()),
      base_(std::move(base)),
      owns_tangent_(dual.owns_tangent) {
  mirror(primal_, 0);
}

const Tensor& DualTensor::tangent() const {
  if (base_ != nullptr && !base_->tangent_.is_same(base_tangent_)) {
    base_tangent_ = base_->tangent_;
    tangent_ =
        base_tangent_.defined() ? same_view(base_tangent_, base_->primal_, primal_) : Tensor();
  }
  return tangent_;
}

c10::SmallVector<Tensor, 2> DualTensor::values() const {
  if (tangent().defined()) {
    return {primal_, tangent_};
  }
  return {primal_};
}

Tensor DualTensor::around(c10::ArrayRef<Tensor> values) {
  lend_tangent();
  return make_dual(level(), {values[0], values.size() > 1 ? values[1] : Tensor(), false});
}

Tensor DualTensor::alias() {
  auto copy = c10::make_intrusive<DualTensor>(level(), dual(), root());
  copy->set_version_counter(version_counter());
  copy->set_allow_tensor_metadata_change(true);
  return Tensor(std::move(copy));
}

void DualTensor::make_tangent_writable(const Tensor& written) {
  if (tangent_.defined() && owns_tangent_ && can_hold(tangent_, written)) {
    return;
  }
  // The copy stands for the tangent that was there, under no_grad as well.
  const c10::AutoGradMode recorded(true);
  // Zeros with the batch dimensions of what is written and of what is there, in the layout of the
  // primal. Only the batch dimensions of `feature` matter.
  const Tensor feature = tangent_.defined() ? written.sum().add(tangent_.sum()) : written;
  Tensor writable = at::_new_zeros_with_same_feature_meta(feature, primal_);
  if (writable.sym_strides() != primal_.sym_strides()) {
    writable = writable.new_empty_strided_symint(primal_.sym_sizes(), primal_.sym_strides());
    writable.zero_();
  }
  if (tangent_.defined()) {
    writable.copy_(tangent_);
  }
  tangent_ = std::move(writable);
  owns_tangent_ = true;
}

// Where all of the memory is written to, nothing of the old tangent has to be kept.
bool DualTensor::replace_tangent(const Tensor& tangent, bool is_fresh) {
  // What is written under no_grad is a new value of a tensor that keeps its place on the tape, the
  // tangent's as well as the primal's.
  if (base_ != nullptr || is_part_ || !c10::GradMode::is_enabled()) {
    return false;
  }
  if (!tangent.defined() || (is_fresh && has_layout_of(tangent, primal_))) {
    tangent_ = tangent;
    owns_tangent_ = true;
  } else if (!owns_tangent_ && !tangent.is_same(tangent_)) {
    tangent_ = Tensor();
  }
  return tangent.is_same(tangent_);
}

void DualTensor::write_tangent(const Tensor& tangent, bool is_fresh) {
  if ((!tangent.defined() && !this->tangent().defined()) || replace_tangent(tangent, is_fresh)) {
    return;
  }
  root()->make_tangent_writable(tangent.defined() ? tangent : tangent_);
  // Only now: the root's tangent may be another tensor than before.
  Tensor target = this->tangent();
  if (tangent.defined()) {
    target.copy_(tangent);
  } else {
    target.zero_();
  }
}

const Tensor& DualTensor::tangent_in_layout_of_primal() {
  if (tangent().sym_strides() != primal_.sym_strides()) {
    const Pointer owner = root();
    owner->owns_tangent_ = false;
    owner->make_tangent_writable(owner->tangent_);
  }
  return tangent();
}

void DualTensor::replace(Tensor primal, Tensor tangent, bool is_part) {
  is_part_ = is_part_ || is_part;
  primal_ = std::move(primal);
  tangent_ = std::move(tangent);
  mirror(primal_, 0);
}

void DualTensor::become(Dual dual) {
  base_.reset();
  base_tangent_.reset();
  owns_tangent_ = dual.owns_tangent;
  replace(std::move(dual.primal), std::move(dual.tangent));
}

DualTensor::Pointer DualTensor::root() {
  return base_ != nullptr ? base_ : Pointer::unsafe_reclaim_from_nonowning(this);
}

c10::intrusive_ptr<c10::TensorImpl> DualTensor::shallow_copy_and_detach(
    const c10::VariableVersion& version, bool allow_metadata_change) const {
  return shallow_copy_and_detach(c10::VariableVersion(version), allow_metadata_change);
}

c10::intrusive_ptr<c10::TensorImpl> DualTensor::shallow_copy_and_detach(
    c10::VariableVersion&& version, bool allow_metadata_change) const {
  // No view of this one: for an output that its own node saves, the copy would keep the node.
  Dual same = is_for_data(version, allow_metadata_change) ? Dual{primal_.variable_data(), {}}
                                                          : const_cast<DualTensor*>(this)->lend();
  auto copy = c10::make_intrusive<DualTensor>(level(), std::move(same), Pointer());
  copy->set_version_counter(std::move(version));
  copy->set_allow_tensor_metadata_change(allow_metadata_change);
  return copy;
}

void DualTensor::shallow_copy_from(const c10::intrusive_ptr<TensorImpl>& impl) {
  const auto* source = as_kind<DualTensor>(as_wrapper(impl.get()));
  TORCH_CHECK(source != nullptr && source->level() == level(),
              "functx.jvp: the data of a dual tensor can only be set to that of another tensor of "
              "the same jvp. Use copy_ instead of assigning to .data.");
  const DualTensor& other = *source;
  const Tensor kept = tangent();
  TORCH_CHECK(!kept.defined() || kept.sym_sizes() == other.sym_sizes(),
              "functx.jvp: the data of a dual tensor with a tangent of shape ", kept.sym_sizes(),
              " can't be set to data of shape ", other.sym_sizes(),
              ". Bind the name to the new tensor instead of assigning to .data.");
  // As in reverse mode, what is differentiated stays so, and its new value is a constant.
  become({other.primal_.variable_data(),
          kept.defined() ? kept.to(other.primal_.scalar_type()) : kept, /*owns_tangent=*/false});
}

void DualTensor::release_resources() {
  TensorImpl::release_resources();
  primal_.reset();
  tangent_.reset();
  base_tangent_.reset();
  base_.reset();
}

Tensor make_dual(const LevelPtr& level, Dual dual) {
  return dual.primal.defined()
             ? at::detail::make_tensor<DualTensor>(level, std::move(dual), nullptr)
             : Tensor();
}

Tensor make_dual_view(const LevelPtr& level, const Tensor& source, Dual view) {
  auto* wrapper = at_level<DualTensor>(source, *level);
  return at::detail::make_tensor<DualTensor>(level, std::move(view),
                                             wrapper != nullptr ? wrapper->root() : nullptr);
}

}  // namespace functx
