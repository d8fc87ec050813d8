// What the engine starts from.
#pragma once

#include "core/wrapper.h"

namespace functx {

// `cotangent` of `output`, ones if it is undefined, as the engine can take it. It adds up gradients
// in place where it may: no plain tensor must be among those of wrappers of `stratum`.
Tensor seed(const Tensor& output, const Tensor& cotangent, const LevelPtr& stratum);

}  // namespace functx
