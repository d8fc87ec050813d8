// What the engine starts from.
#pragma once

#include <vector>

#include "core/node_numbers.h"
#include "core/wrapper.h"

namespace functx {

// `cotangent` of `output`, ones if it is undefined, as the engine can take it. It adds up gradients
// in place where it may: no plain tensor must be among those of wrappers of `stratum`.
// `in_full` gives it all batch dimensions that the output has.
Tensor seed(const Tensor& output, const Tensor& cotangent, const LevelPtr& stratum, bool in_full);

// Whether one of `roots` is reached by a write into a view, over nodes with at least this number.
// The gradient of such a write is itself written into views, whose batch dimensions are those of
// the cotangent: it is needed in full.
bool writes_into_views(const std::vector<NodePtr>& roots, uint64_t least);

}  // namespace functx
