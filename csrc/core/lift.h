// Strata: the wrapping depth at which a tape sits.
#pragma once

#include "core/wrapper.h"

namespace functx {

// `tensor` as a wrapper of `level`: a batched tensor that is the same for every example, or a dual
// without tangent. What is on a tape of that stratum stays on it (see `has_tape_above`). Null
// level, or already there: `tensor` itself.
Tensor lift(const Tensor& tensor, const LevelPtr& level);

// How a value becomes a wrapper of a level of `transform`; the class of these wrappers says so.
using Lifting = Tensor (*)(const LevelPtr& level, const Tensor& value);
void set_lifting(Transform transform, Lifting lifting);

// The level of `tensor`, null for one that is no wrapper.
LevelPtr level_of(const Tensor& tensor);

// The innermost level among `tensors`, at least `innermost`.
LevelPtr innermost_of(at::ArrayRef<Tensor> tensors, LevelPtr innermost = {});

}  // namespace functx
