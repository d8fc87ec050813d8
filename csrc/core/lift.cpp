#include "core/lift.h"

#include <array>

#include "core/tape_above.h"

namespace functx {
namespace {

std::array<Lifting, 2> liftings{};

}  // namespace

void set_lifting(Transform transform, Lifting lifting) {
  liftings.at(static_cast<size_t>(transform)) = lifting;
}

LevelPtr level_of(const Tensor& tensor) {
  const Wrapper* wrapper = as_wrapper(tensor);
  return wrapper != nullptr ? wrapper->level() : LevelPtr();
}

Tensor lift(const Tensor& tensor, const LevelPtr& level) {
  if (level == nullptr || !tensor.defined() || level_of(tensor) == level) {
    return tensor;
  }
  const auto lifting = [](const LevelPtr& to) {
    return liftings.at(static_cast<size_t>(to->transform));
  };
  const LevelPtr stratum = stratum_above(tensor);
  if (stratum == nullptr || stratum->id > level->id) {
    return lifting(level)(level, tensor);
  }
  const Tensor taped = with_tape(tensor, stratum, lifting(stratum));
  return stratum == level ? taped : lifting(level)(level, taped);
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
