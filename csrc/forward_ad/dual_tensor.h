// A tensor under jvp: a primal and its tangent.
#pragma once

#include "core/wrapper.h"

namespace functx {

// What a dual rule works on. An undefined tangent is zero, and stays symbolic.
struct Dual {
  Tensor primal;
  Tensor tangent;
  // False for a tangent that somebody else may hold too, or that was expanded: it is copied before
  // it is written to. Rules need not say of a tangent that an argument has (sharing.h).
  bool owns_tangent = true;

  bool has_tangent() const { return tangent.defined(); }
  bool defined() const { return primal.defined(); }
};

class DualTensor final : public Wrapper {
 public:
  static constexpr Transform kTransform = Transform::Jvp;

  using Pointer = c10::intrusive_ptr<DualTensor>;

  // `base` is null unless `dual` is a view of it.
  DualTensor(LevelPtr level, Dual dual, Pointer base);

  const Tensor& primal() const { return primal_; }
  // The tangent as the last write to this tensor, its base or another view of it left it.
  const Tensor& tangent() const;
  Dual dual() const { return {primal_, tangent(), false}; }

  c10::SmallVector<Tensor, 2> values() const override;
  Tensor around(c10::ArrayRef<Tensor> values) override;
  Tensor alias() override;
  bool is_its_value() const override { return !tangent().defined(); }

  // After the primal was written to in place: makes `tangent` (undefined: zero) the tangent, for
  // all tensors that share memory with this one. A fresh one, which nobody else holds, may be kept.
  void write_tangent(const Tensor& tangent, bool is_fresh = false);

  // Whether the tangent may be written to in place, and that from now on it may not, or may.
  bool owns_tangent() { return root()->owns_tangent_; }
  void lend_tangent() { root()->owns_tangent_ = false; }
  void take_tangent_back() { root()->owns_tangent_ = true; }

  // What another dual can be made of: the tangent has two holders from now on.
  Dual lend() {
    lend_tangent();
    return dual();
  }

  // The tangent in the memory layout of the primal, so that a view of the primal by strides is the
  // same view of the tangent. There must be a tangent.
  const Tensor& tangent_in_layout_of_primal();

  // For in-place operators that turn a tensor into a view of itself (`t_`...), or of a part of it.
  void replace(Tensor primal, Tensor tangent, bool is_part = false);

  // Makes this another dual, which is a view of nothing.
  void become(Dual dual);

  // The tensor that views of this one are views of.
  Pointer root();

  c10::intrusive_ptr<TensorImpl> shallow_copy_and_detach(const c10::VariableVersion& version,
                                                         bool allow_metadata_change) const override;
  c10::intrusive_ptr<TensorImpl> shallow_copy_and_detach(c10::VariableVersion&& version,
                                                         bool allow_metadata_change) const override;
  void shallow_copy_from(const c10::intrusive_ptr<TensorImpl>& impl) override;
  void release_resources() override;

 private:
  void make_tangent_writable(const Tensor& written);
  bool replace_tangent(const Tensor& tangent, bool is_fresh);

  Tensor primal_;
  // A view's tangent is looked up again when its base's is another than `base_tangent_`.
  mutable Tensor tangent_;
  mutable Tensor base_tangent_;
  Pointer base_;
  bool owns_tangent_;
  // Whether there are views of more memory than this tensor has left.
  bool is_part_ = false;
};

Tensor make_dual(const LevelPtr& level, Dual dual);

// Integers and booleans have none.
inline bool can_have_tangent(const Tensor& tensor) {
  return c10::isFloatingType(tensor.scalar_type()) || c10::isComplexType(tensor.scalar_type());
}

// `view` is a view of `source`, and its tangent, if any, the same view of the tangent.
Tensor make_dual_view(const LevelPtr& level, const Tensor& source, Dual view);

// The dual of `tensor` at `level`; a tensor of another level is a constant.
inline Dual unwrap_dual(const LevelPtr& level, const Tensor& tensor) {
  if (const auto* wrapper = at_level<DualTensor>(tensor, *level)) {
    return wrapper->dual();
  }
  return {tensor, {}};
}

}  // namespace functx
