#include "reverse_ad/lift.h"

#include "batching/batched_tensor.h"
#include "forward_ad/dual_tensor.h"

namespace functx {

LevelPtr level_of(const Tensor& tensor) {
  const Wrapper* wrapper = as_wrapper(tensor);
  return wrapper != nullptr ? wrapper->level() : LevelPtr();
}

Tensor lift(const Tensor& tensor, const LevelPtr& level) {
  if (level == nullptr || !tensor.defined() || level_of(tensor) == level) {
    return tensor;
  }
  return level->transform == Transform::Vmap ? make_batched(level, {tensor, false})
                                             : make_dual(level, {tensor, {}});
}

LevelPtr innermost_of(at::ArrayRef<Tensor> tensors, LevelPtr innermost) {
  for (const Tensor& tensor : tensors) {
    const LevelPtr level = tensor.defined() ? level_of(tensor) : LevelPtr();
    if (level != nullptr && (innermost == nullptr || innermost->id < level->id)) {
      innermost = level;
    }
  }
  return innermost;
}

}  // namespace functx
