// The base of batched and dual tensors: a TensorImpl that stands for a value of another tensor.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorImpl.h>

#include <array>
#include <typeinfo>

#include "core/keys.h"
#include "core/level.h"

namespace functx {

using at::Tensor;

class Wrapper : public c10::TensorImpl {
 public:
  const LevelPtr& level() const { return level_; }
  int64_t level_id() const { return level_->id; }

  // Whether autograd has to see operators on this wrapper: it requires grad and grad mode is on,
  // or it carries a native forward grad (which counts under no_grad too).
  bool is_taped() { return autograd_meta() != nullptr && has_tape(); }

  // A view of another wrapper that autograd was not told of, since nothing was tracked: were a
  // tracked value written into it, the other wrapper would not know.
  bool is_unrecorded_view() const { return is_unrecorded_view_; }
  void set_unrecorded_view() { is_unrecorded_view_ = true; }

 protected:
  Wrapper(LevelPtr level, const Tensor& like);

  // Takes over the geometry of `value` without its first `skipped` dimensions. The storage offset
  // stays that of `value`, so that as_strided on the wrapper means the same on the value.
  void mirror(const Tensor& value, int64_t skipped);

  // What PyTorch prints when somebody asks for the storage of a wrapper.
  const char* tensorimpl_type_name() const override;

 private:
  bool has_tape();

  LevelPtr level_;
  bool is_unrecorded_view_ = false;
};

// The classes of wrappers, which the files that define them put here when the extension is loaded.
inline std::array<const std::type_info*, 2> wrapper_classes{};

// A tensor of another class may have our keys too: PyTorch's functionalization wraps any tensor,
// and its wrappers take over the keys.
inline bool is_wrapper_class(const c10::TensorImpl& impl) {
  const std::type_info* type = &typeid(impl);
  return type == wrapper_classes[0] || type == wrapper_classes[1];
}

inline Wrapper* as_wrapper(c10::TensorImpl* impl) {
  return impl->key_set().has(kFrontKey) && is_wrapper_class(*impl) ? static_cast<Wrapper*>(impl)
                                                                   : nullptr;
}

inline Wrapper* as_wrapper(const at::TensorBase& tensor) {
  return as_wrapper(tensor.unsafeGetTensorImpl());
}

// The wrapper of exactly this level, or null.
template <class Kind>
Kind* at_level(const Tensor& tensor, const Level& level) {
  Wrapper* wrapper = as_wrapper(tensor);
  return wrapper != nullptr && wrapper->level().get() == &level ? static_cast<Kind*>(wrapper)
                                                                : nullptr;
}

// Raises for a tensor whose transform has already returned.
void check_alive(const Wrapper& wrapper);

}  // namespace functx
