// For formulas that depend on where they are evaluated: the numbers behind a tensor.
#pragma once

#include <cmath>

#include "core/wrapper.h"

namespace functx {

// What the wrappers of `tensor` come down to: its numbers, in some order, with those of all
// examples and without tangents.
Tensor plain_value(const Tensor& tensor);

// Whether there are numbers: a tensor that is only traced, or whose class is not PyTorch's, has
// none to look at.
bool has_numbers(const Tensor& plain);

// Whether they can be looked at without waiting for a device.
bool can_be_read(const Tensor& plain);

// The smallest and the largest absolute value of those that are neither zero nor infinite, and
// whether there are others.
struct Sizes {
  double smallest = INFINITY, largest = 0;
  bool any_zero = false, any_infinite = false;
};

// Of a tensor that can be read.
Sizes sizes_of(const Tensor& plain);

// Of any that has numbers; may wait for a device.
bool any_zero(const Tensor& plain);

// `tensor` as a constant to every tape and jvp level. Examples stay examples.
Tensor constant(const Tensor& tensor);

// How many of the active transforms take a derivative. One that looks at a function from outside of
// them all, ordinary autograd, is not among them.
int64_t active_derivatives();

// What operators that choose by the derivatives to come go by.
struct Derivatives {
  int64_t count;
  bool by_tape;
};
Derivatives current_derivatives();

// Until it goes, these are taken to be active on this thread. What runs again, to be recorded as it
// was the first time, has to choose the operators that it chose then.
class AssumeDerivatives {
 public:
  explicit AssumeDerivatives(const Derivatives& derivatives);
  ~AssumeDerivatives();
  AssumeDerivatives(const AssumeDerivatives&) = delete;
  AssumeDerivatives& operator=(const AssumeDerivatives&) = delete;

 private:
  Derivatives before_;
};

}  // namespace functx
