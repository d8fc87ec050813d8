// Saved-tensor hooks and checkpointing, on wrappers.
//
// Such hooks work on data: they may detach or recompute what a tape saves, for autograd keeps apart
// what else there is to a tensor, its place in the graph and its tangent, and puts it back. The
// value of a wrapper has those too, for the tapes and the tangents below; they are kept apart here.
#pragma once

#include <torch/csrc/autograd/edge.h>

#include <cstdint>
#include <memory>

#include "core/wrapper.h"

namespace functx {

struct Ties;
using TiesPtr = std::shared_ptr<const Ties>;

// What connects a tensor, and its value if it is a wrapper, to tapes and tangents.
struct Ties {
  // That of a wrapper, or null.
  LevelPtr level;
  // Where the gradient of the tensor goes, if anywhere.
  torch::autograd::Edge edge;
  // That of a dual tensor, or of PyTorch's own forward mode.
  Tensor tangent;
  // Those of the value of a wrapper, and those of the tangent, if they have any.
  TiesPtr value, of_tangent;
  // Of the tensor that was saved: what counts the writes to it, and how many there had been.
  c10::VariableVersion writes = {};
  uint32_t version = 0;
};

// The ties below the stratum of `saved`, whose own autograd looks after; null if that is no
// wrapper.
TiesPtr ties_below(const Tensor& saved);

// `data`, which a hook made of the saved tensor, with `ties` again. If that was written to since,
// its tangents are those that the hook copied or computed again; raises if it did neither.
Tensor tie(const Tensor& data, const TiesPtr& ties);

}  // namespace functx
