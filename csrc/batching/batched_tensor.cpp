#include "batching/batched_tensor.h"

#include "core/alias.h"
#include "core/lift.h"
#include "core/registry.h"

namespace functx {
namespace {

const AtLoad class_is_known([] {
  wrapper_classes[0] = &typeid(BatchedTensor);
  set_lifting(Transform::Vmap, [](const LevelPtr& level, const Tensor& value) {
    return make_batched(level, {value, false});
  });
});

}  // namespace

BatchedTensor::BatchedTensor(LevelPtr level, Tensor value, bool is_batched)
    : Wrapper(std::move(level), kTransform, value),
      value_(std::move(value)),
      is_batched_(is_batched) {
  refresh();
}

Tensor BatchedTensor::around(c10::ArrayRef<Tensor> values) {
  return make_batched(level(), {values[0], is_batched_});
}

Tensor BatchedTensor::alias() {
  return Tensor(shallow_copy_and_detach(version_counter(), /*allow_metadata_change=*/true));
}

void BatchedTensor::refresh() { mirror(value_, is_batched_ ? 1 : 0); }

c10::intrusive_ptr<c10::TensorImpl> BatchedTensor::shallow_copy_and_detach(
    const c10::VariableVersion& version, bool allow_metadata_change) const {
  return shallow_copy_and_detach(c10::VariableVersion(version), allow_metadata_change);
}

c10::intrusive_ptr<c10::TensorImpl> BatchedTensor::shallow_copy_and_detach(
    c10::VariableVersion&& version, bool allow_metadata_change) const {
  auto copy = c10::make_intrusive<BatchedTensor>(
      level(), is_for_data(version, allow_metadata_change) ? value_.variable_data() : value_,
      is_batched_);
  copy->set_version_counter(std::move(version));
  copy->set_allow_tensor_metadata_change(allow_metadata_change);
  return copy;
}

void BatchedTensor::shallow_copy_from(const c10::intrusive_ptr<TensorImpl>& impl) {
  const auto* other = as_kind<BatchedTensor>(as_wrapper(impl.get()));
  TORCH_CHECK(other != nullptr && other->level() == level(),
              "functx.vmap: the data of a batched tensor can only be set to that of another tensor "
              "of the same vmap. Use copy_ instead of assigning to .data.");
  value_ = other->value_;
  is_batched_ = other->is_batched_;
  refresh();
}

void BatchedTensor::release_resources() {
  TensorImpl::release_resources();
  value_.reset();
}

}  // namespace functx
