// The formulas as operators of the dispatcher, so that a tape in any stratum can record one as a
// whole, and computes its gradient in blocks as well: the vjp of a jvp is the jvp of the vjp.
#pragma once

#include <c10/core/GradMode.h>

#include "attention/formulas.h"

namespace functx {

// As the formulas of these names, for tensors of any kind. All have four dimensions; those that are
// batched may be so in any of them.
std::vector<Tensor> attention_jvp(const AttentionTensors& x, const AttentionTensors& t,
                                  const Scoring& scoring);
std::vector<Tensor> attention_vjp(const AttentionTensors& x, const Scoring& scoring);
std::vector<Tensor> attention_vjp_jvp(const AttentionTensors& x, const AttentionTensors& t,
                                      const Scoring& scoring);
std::vector<Tensor> attention_mask_vjp_jvp(const AttentionTensors& x, const AttentionTensors& t,
                                           const Scoring& scoring);

// Whether a tape on one of the values records what is done with them now.
template <class... Tensors>
bool is_recorded(const Tensors&... tensors) {
  return c10::GradMode::is_enabled() && ((tensors.defined() && tensors.requires_grad()) || ...);
}

}  // namespace functx
