// Operators that a tape records with a derivative of ours.
#pragma once

#include <ATen/core/LegacyTypeDispatch.h>

#include <functional>
#include <vector>

#include "core/wrapper.h"

namespace functx {

// From the gradient of a result and the saved tensors, the gradients of the inputs; an undefined
// one is zero. Written in operators that have derivatives, for gradients of gradients.
using Pullback =
    std::function<std::vector<Tensor>(const Tensor& gradient, const std::vector<Tensor>& saved)>;

// Whether autograd would record what is done with the tensor now.
bool needs_tape(const Tensor& tensor);

// Puts `result`, a fresh tensor, on the tape as a function of `inputs`.
Tensor record(const char* name, Tensor result, const std::vector<Tensor>& inputs,
              const std::vector<Tensor>& saved, Pullback pullback);

// The value of a call that a tape records as a whole; the strata below see what it is made of.
template <class Compute>
auto below_tape(const Compute& compute) {
  const at::AutoDispatchBelowADInplaceOrView below;
  return compute();
}

}  // namespace functx
