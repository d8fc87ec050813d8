// The base of batched and dual tensors: a TensorImpl that stands for a value of another tensor.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorImpl.h>

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
};

inline Wrapper* as_wrapper(const at::TensorBase& tensor) {
  c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  return impl->key_set().has(kFrontKey) ? static_cast<Wrapper*>(impl) : nullptr;
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
