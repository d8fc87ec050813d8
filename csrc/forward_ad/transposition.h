// Whether a backward that somebody wrote can be transposed: it has to be linear in its gradients,
// and autograd has to see all that it does with them.
//
// A backward u -> J^T u that was recorded at one u has given J v. If it is what it should be, then
// <J^T w, v> = <w, J v> for every other w. The other one is chosen such that a backward which
// clips, quantises, thresholds, normalises or takes signs or absolute values does not pass: its
// elements are larger by many orders of magnitude, of other signs and in another order.
#pragma once

#include <ATen/core/Generator.h>

#include <utility>
#include <vector>

#include "core/wrapper.h"

namespace functx {

enum class Probe : uint8_t { ToRecord, ToCompare };

// A cotangent for an output of this shape.
Tensor probe(Probe kind, c10::SymIntArrayRef sizes, at::ScalarType dtype, at::Device device);

// The random numbers that a backward draws, which it has to draw again when it runs again.
class RandomState {
 public:
  // Of the CPU and of the devices of `tensors`.
  explicit RandomState(const std::vector<Tensor>& tensors);

  // Goes back to when this was made; a second time, to where the first left.
  void swap();

 private:
  std::vector<std::pair<at::Generator, Tensor>> states_;
};

// Whether numbers can be compared: not while a program is traced, or where there are none.
bool has_numbers(const std::vector<Tensor>& tensors);

// Whether the sum of the products of `gradients` and `tangents` is that of `cotangents` and
// `output_tangents`, to rounding. What is undefined is zero; what is not finite agrees.
bool is_transpose(const std::vector<Tensor>& gradients, const std::vector<Tensor>& tangents,
                  const std::vector<Tensor>& cotangents,
                  const std::vector<Tensor>& output_tangents);

}  // namespace functx
