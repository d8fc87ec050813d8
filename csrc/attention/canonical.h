// From what fused kernels take and return to the tensors of the formulas, and back.
#pragma once

#include <tuple>

#include "attention/formulas.h"

namespace functx {

class CanonicalAttention {
 public:
  // `x` as a kernel takes and returns it: keys and values may have fewer heads than queries (each
  // for a group of them), a mask fewer dimensions, and logsumexp rows of padding.
  explicit CanonicalAttention(const AttentionTensors& x);

  const AttentionTensors& primals() const { return primals_; }
  AttentionTensors tangents(const AttentionTensors& t) const { return converted(t); }

  // A gradient of `like`, which is the query, key or value; undefined stays so.
  static Tensor gradient(const Tensor& canonical, const Tensor& like);
  // The same, of a mask.
  static Tensor mask(const Tensor& canonical, const Tensor& like);
  // A tangent of `like`, which is a kernel's logsumexp.
  static Tensor logsumexp(const Tensor& canonical, const Tensor& like);

 private:
  AttentionTensors converted(const AttentionTensors& tensors) const;

  c10::SymInt heads_;
  c10::SymInt queries_;
  AttentionTensors primals_;
};

// Gradients of query, key and value of a call, as its kernel's own backward returns them, but for a
// tape that has to differentiate them in turn.
std::tuple<Tensor, Tensor, Tensor> differentiable_backward(const AttentionTensors& x,
                                                           const Scoring& scoring);
// Likewise, and of the mask; undefined if that is not wanted.
std::tuple<Tensor, Tensor, Tensor, Tensor> differentiable_backward_with_mask(
    const AttentionTensors& x, const Scoring& scoring, bool wants_mask);

// Raises where the CPU's kernels would divide by the number of heads, queries or keys, which is
// zero; its backward takes no queries and no keys.
void check_has_heads(const Tensor& query, const Tensor& key);
void check_has_scores(const Tensor& query, const Tensor& key);

// Whether the tensors of a call are rounded more coarsely than the formulas compute.
bool is_reduced(const Tensor& tensor);

// Of a causal call, a query sees the keys up to its own position, counted from the first of both,
// or from the last of both.
Scoring scoring_from_start(const Tensor& query, bool is_causal, std::optional<double> scale);
Scoring scoring_from_end(const Tensor& query, const Tensor& key, bool is_causal,
                         std::optional<double> scale);

}  // namespace functx
