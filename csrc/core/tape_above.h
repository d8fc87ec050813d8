// Tensors that are on a tape of a stratum above their own.
//
// A value that is tracked at a level may be written in place into a tensor which is no wrapper of
// that level, if it is the same for every example, or has no tangent. Autograd records that, and
// from then on the tensor is on the tape of the level's wrappers, though it looks like a constant
// to it. Where it meets a wrapper, a wrapper with its place on the tape takes its place.
#pragma once

#include "core/lift.h"

namespace functx {

// The level in whose stratum the tape of `tensor` is, if that is above the stratum of `tensor`.
LevelPtr stratum_above(const Tensor& tensor);

inline bool has_tape_above(const Tensor& tensor) {
  return tensor.unsafeGetTensorImpl()->autograd_meta() != nullptr &&
         stratum_above(tensor) != nullptr;
}

// `tensor` on the same tape as a wrapper of `stratum`, that of the tape.
Tensor with_tape(const Tensor& tensor, const LevelPtr& stratum, Lifting lifting);

// The same value, in the same memory, on no tape of its own stratum.
Tensor without_own_tape(const Tensor& tensor);

// For an in-place operator `name` that the tape of `level` is about to record, which writes
// `sources` into `self`, no wrapper of the level: raises if there is a tape below that would have
// to record it too, since `self` can only be on one.
void check_one_tape(const char* name, const Level& level, const Tensor& self,
                    c10::ArrayRef<Tensor> sources);

// After it: makes sure that the tape is seen to be one of the stratum of `level`.
void note_tape_above(const Tensor& self, const Level& level);

}  // namespace functx
