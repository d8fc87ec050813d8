// The base of batched and dual tensors: a TensorImpl that stands for a value of another tensor.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorImpl.h>
#include <c10/util/SmallVector.h>

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

  // What it stands for, one stratum down: the value, or the primal and the tangent if it has one.
  virtual c10::SmallVector<Tensor, 2> values() const = 0;
  // A wrapper of the same kind around others in their place, on no tape.
  virtual Tensor around(c10::ArrayRef<Tensor> values) = 0;
  // Another of the same value, which shares memory, tangent and version counter and has autograd
  // metadata of its own. Unlike the operator detach, it keeps the tangent.
  virtual Tensor alias() = 0;
  // Whether it is nothing but its value: the same for every example, or without a tangent.
  virtual bool is_its_value() const = 0;

  // A view of another wrapper that autograd was not told of, since nothing was tracked: were a
  // tracked value written into it, the other wrapper would not know.
  bool is_unrecorded_view() const { return is_unrecorded_view_; }
  void set_unrecorded_view() { is_unrecorded_view_ = true; }

 protected:
  // `transform` is the one that wrappers of this class belong to.
  Wrapper(LevelPtr level, Transform transform, const Tensor& like);

  // Takes over the geometry of `value` without its first `skipped` dimensions. The storage offset
  // stays that of `value`, so that as_strided on the wrapper means the same on the value.
  void mirror(const Tensor& value, int64_t skipped);

  // That of the value, where it is not strided.
  c10::Layout layout_custom() const override;

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

// The id of its level, 0 for a tensor that is no wrapper.
inline int64_t level_id_of(const Tensor& tensor) {
  const Wrapper* wrapper = as_wrapper(tensor);
  return wrapper != nullptr ? wrapper->level_id() : 0;
}

// The wrapper as what it is, or null if it is of another class: that of a level's wrappers follows
// from its transform, which the constructors check.
template <class Kind>
Kind* as_kind(Wrapper* wrapper) {
  return wrapper != nullptr && wrapper->level()->transform == Kind::kTransform
             ? static_cast<Kind*>(wrapper)
             : nullptr;
}

// The wrapper of exactly this level, or null, as it is if this level's are of another kind.
template <class Kind>
Kind* at_level(const Tensor& tensor, const Level& level) {
  Wrapper* wrapper = as_wrapper(tensor);
  return wrapper != nullptr && wrapper->level().get() == &level &&
                 level.transform == Kind::kTransform
             ? static_cast<Kind*>(wrapper)
             : nullptr;
}

// Raises for a tensor whose transform has already returned.
void check_alive(const Wrapper& wrapper);

// Whether `wrapper` has outlived its transform, and no backward pass is running: a checkpoint
// inside the transform is recomputed when that needs it, maybe after the transform has returned,
// and rules need nothing but the data.
bool has_outlived(const Wrapper& wrapper);

}  // namespace functx
