// Strata: the wrapping depth at which a tape sits.
#pragma once

#include "core/wrapper.h"

namespace functx {

// `tensor` as a wrapper of `level`: a batched tensor that is the same for every example, or a dual
// without tangent. Null level, or already there: `tensor` itself.
Tensor lift(const Tensor& tensor, const LevelPtr& level);

// The level of `tensor`, null for one that is no wrapper.
LevelPtr level_of(const Tensor& tensor);

// The innermost level among `tensors`, at least `innermost`.
LevelPtr innermost_of(at::ArrayRef<Tensor> tensors, LevelPtr innermost = {});

}  // namespace functx
