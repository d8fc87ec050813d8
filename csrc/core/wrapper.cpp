#include "core/wrapper.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/variable.h>

#include "core/nested.h"

namespace functx {

Wrapper::Wrapper(LevelPtr level, Transform transform, const Tensor& like)
    : TensorImpl(kWrapperKeys | (like.key_set() & c10::autocast_dispatch_keyset), like.dtype(),
                 like.device()),
      level_(std::move(level)) {
  TORCH_INTERNAL_ASSERT(level_->transform == transform);
  set_storage_access_should_throw();
  if (is_inference()) [[unlikely]] {
    // Inference mode keeps autograd from what is made in it, and a `grad` in there asks for it.
    key_set_ = key_set_ | c10::getAutogradRelatedKeySetFromBackend(key_set_.highestBackendKey());
    set_version_counter(c10::VariableVersion(0));
  }
}

void Wrapper::mirror(const Tensor& value, int64_t skipped) {
  check_has_shape(value, level_->transform);
  check_has_strides(value, level_->transform);
  // Like the strides, the conjugate and the negative bit tell PyTorch's compositions how the value
  // lies in memory: `real` looks at the conjugate of a conjugate view.
  _set_conj(value.is_conj());
  _set_neg(value.is_neg());
  set_custom_layout(value.layout() != at::kStrided);
  if (value.unsafeGetTensorImpl()->has_symbolic_sizes_strides()) [[unlikely]] {
    set_sizes_and_strides(value.sym_sizes().slice(skipped), value.sym_strides().slice(skipped),
                          value.sym_storage_offset());
    return;
  }
  sizes_and_strides_.set_sizes(value.sizes().slice(skipped));
  sizes_and_strides_.set_strides(value.strides().slice(skipped));
  storage_offset_ = value.storage_offset();
  refresh_numel();
  refresh_contiguous();
}

c10::Layout Wrapper::layout_custom() const { return values()[0].layout(); }

const char* Wrapper::tensorimpl_type_name() const {
  // The message it completes begins with "Cannot access storage of".
  return level_->transform == Transform::Vmap
             ? "a tensor inside functx.vmap: it stands for one example of a batch and has no "
               "memory of its own. Return it from the function, or look at it with "
               "functx.debug_unwrap"
             : "a tensor inside functx.jvp: it stands for a primal and a tangent and has no memory "
               "of its own. Return it from the function, or look at it with functx.debug_unwrap";
}

bool Wrapper::has_tape() {
  const auto* meta = static_cast<const torch::autograd::AutogradMeta*>(autograd_meta());
  return (meta->requires_grad() && c10::GradMode::is_enabled()) ||
         (meta->fw_grad_ != nullptr && !meta->fw_grad_->empty());
}

bool has_outlived(const Wrapper& wrapper) {
  return !wrapper.level()->alive && torch::autograd::get_current_graph_task_id() == -1;
}

void check_alive(const Wrapper& wrapper) {
  const Level& level = *wrapper.level();
  TORCH_CHECK(
      !has_outlived(wrapper), "functx.", name_of(level.transform),
      ": a tensor of this transform has escaped from inside a function being ",
      level.transform == Transform::Vmap ? "vmapped" : "differentiated",
      ": it was used after the transform (level ", level.id,
      ") had returned, probably kept in a global, an attribute or a list. Return it from the "
      "function instead.");
}

}  // namespace functx
