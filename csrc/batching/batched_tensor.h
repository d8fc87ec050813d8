// A tensor under vmap: one logical tensor that stands for a batch of them.
#pragma once

#include "core/wrapper.h"

namespace functx {

// What a batching rule works on. A batch dimension, where there is one, is dimension 0 of `value`:
// logical dimension d is physical dimension d + 1.
struct Batched {
  Tensor value;
  bool is_batched = false;

  // Dimensions of one example.
  int64_t logical_dim() const { return value.dim() - static_cast<int64_t>(is_batched); }
  bool defined() const { return value.defined(); }
};

class BatchedTensor final : public Wrapper {
 public:
  static constexpr Transform kTransform = Transform::Vmap;

  BatchedTensor(LevelPtr level, Tensor value, bool is_batched);

  const Tensor& value() const { return value_; }
  bool is_batched() const { return is_batched_; }
  Batched batched() const { return {value_, is_batched_}; }

  c10::SmallVector<Tensor, 2> values() const override { return {value_}; }
  Tensor around(c10::ArrayRef<Tensor> values) override;
  Tensor alias() override;
  bool is_its_value() const override { return !is_batched_; }

  // After an in-place operator has changed the shape of the value.
  void refresh();

  c10::intrusive_ptr<TensorImpl> shallow_copy_and_detach(const c10::VariableVersion& version,
                                                         bool allow_metadata_change) const override;
  c10::intrusive_ptr<TensorImpl> shallow_copy_and_detach(c10::VariableVersion&& version,
                                                         bool allow_metadata_change) const override;
  void shallow_copy_from(const c10::intrusive_ptr<TensorImpl>& impl) override;
  void release_resources() override;

 private:
  Tensor value_;
  bool is_batched_;
};

inline Tensor make_batched(const LevelPtr& level, Batched batched) {
  if (!batched.value.defined()) {
    return {};
  }
  return at::detail::make_tensor<BatchedTensor>(level, std::move(batched.value),
                                                batched.is_batched);
}

// The value of `tensor` at `level`; a tensor of another level is the same for every example.
inline Batched unwrap_batched(const LevelPtr& level, const Tensor& tensor) {
  if (const auto* wrapper = at_level<BatchedTensor>(tensor, *level)) {
    return wrapper->batched();
  }
  return {tensor, false};
}

}  // namespace functx
