// Attention written out, for derivatives that the fused kernels do not have: their backward cannot
// be differentiated again.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

#include <optional>
#include <tuple>

namespace functx {

using at::Tensor;

// The parameters that decide about the scores q @ k^T * scale + mask.
struct AttentionScoring {
  bool is_causal;
  // May be undefined; boolean (true: take part) or added to the scores.
  Tensor mask;
  std::optional<double> scale;

  // [..., L, S] of query [..., L, E] and key [..., S, E].
  Tensor scores(const Tensor& query, const Tensor& key) const;
  // Softmax of the scores, differentiable in query and key.
  Tensor probabilities(const Tensor& query, const Tensor& key) const;
  double scale_for(const Tensor& query) const;
};

// Gradients of query, key and value for that of the output, differentiable in all arguments.
std::tuple<Tensor, Tensor, Tensor> attention_backward(const AttentionScoring& scoring,
                                                      const Tensor& grad, const Tensor& query,
                                                      const Tensor& key, const Tensor& value);

// Whether a tape on one of the values records what is done with them now.
template <class... Tensors>
bool is_recorded(const Tensors&... tensors) {
  return c10::GradMode::is_enabled() && ((tensors.defined() && tensors.requires_grad()) || ...);
}

}  // namespace functx
