#include "forward_ad/dual_tensor.h"

#include <ATen/ops/_new_zeros_with_same_feature_meta.h>

#include "batching/batched_tensor.h"
#include "core/registry.h"

namespace functx {
namespace {

// `view` looks at `base` by strides: the tangent that looks at `base_tangent` in the same way.
Tensor same_view(const Tensor& base_tangent, const Tensor& base, const Tensor& view) {
  return base_tangent.as_strided_symint(
      view.sym_sizes(), view.sym_strides(),
      base_tangent.sym_storage_offset() + view.sym_storage_offset() - base.sym_storage_offset());
}

// Whether `written` can be copied into `target`: whatever differs between the examples of a batch
// in `written` must do so in `target`, and a tangent must find a place.
bool can_hold(const Tensor& target, const Tensor& written) {
  const Wrapper* wrapper = as_wrapper(written);
  if (wrapper == nullptr) {
    constexpr auto torch_func_batched = c10::DispatchKey::FuncTorchBatched;
    return target.key_set().has(torch_func_batched) || !written.key_set().has(torch_func_batched);
  }
  const LevelPtr& level = wrapper->level();
  if (level->transform == Transform::Vmap) {
    const Batched inner = static_cast<const BatchedTensor*>(wrapper)->batched();
    const Batched outer = unwrap_batched(level, target);
    return (outer.is_batched || !inner.is_batched) && can_hold(outer.value, inner.value);
  }
  const Dual inner = static_cast<const DualTensor*>(wrapper)->dual();
  return at_level<DualTensor>(target, *level) != nullptr &&
         can_hold(unwrap_dual(level, target).primal, inner.primal);
}

const AtLoad class_is_known([] { wrapper_classes[1] = &typeid(DualTensor); });

}  // namespace

DualTensor::DualTensor(LevelPtr level, Dual dual, Pointer base)
    : Wrapper(std::move(level), dual.primal),
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
    tangent_ = same_view(base_tangent_, base_->primal_, primal_);
  }
  return tangent_;
}

void DualTensor::make_tangent_writable(const Tensor& written) {
  if (tangent_.defined() && owns_tangent_ && can_hold(tangent_, written)) {
    return;
  }
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

void DualTensor::write_tangent(const Tensor& tangent) {
  if (!tangent.defined() && !this->tangent().defined()) {
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

void DualTensor::replace(Tensor primal, Tensor tangent) {
  primal_ = std::move(primal);
  tangent_ = std::move(tangent);
  mirror(primal_, 0);
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
  auto copy =
      c10::make_intrusive<DualTensor>(level(), dual(), const_cast<DualTensor*>(this)->root());
  copy->set_version_counter(std::move(version));
  copy->set_allow_tensor_metadata_change(allow_metadata_change);
  return copy;
}

void DualTensor::shallow_copy_from(const c10::intrusive_ptr<TensorImpl>& impl) {
  const Wrapper* wrapper = as_wrapper(impl.get());
  TORCH_CHECK(wrapper != nullptr && wrapper->level() == level(),
              "functx.jvp: the data of a dual tensor can only be set to that of another tensor of "
              "the same jvp. Use copy_ instead of assigning to .data.");
  const auto& other = static_cast<const DualTensor&>(*impl);
  replace(other.primal_, other.tangent());
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
