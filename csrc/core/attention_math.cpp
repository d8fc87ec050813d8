#include "core/attention_math.h"

#include <ATen/ops/ones.h>

#include <cmath>

namespace functx {

double AttentionScoring::scale_for(const Tensor& query) const {
  const auto width = static_cast<double>(query.sym_size(-1).guard_int(__FILE__, __LINE__));
  return scale.value_or(1 / std::sqrt(width));
}

Tensor AttentionScoring::scores(const Tensor& query, const Tensor& key) const {
  Tensor scores = query.matmul(key.transpose(-2, -1)).mul(scale_for(query));
  if (mask.defined()) {
    scores = mask.scalar_type() == at::kBool ? scores.masked_fill(mask.logical_not(), -INFINITY)
                                             : scores.add(mask);
  }
  if (is_causal) {
    const auto past =
        at::ones({query.size(-2), key.size(-2)}, at::TensorOptions(query.device()).dtype(at::kBool))
            .tril();
    scores = scores.masked_fill(past.logical_not(), -INFINITY);
  }
  return scores;
}

Tensor AttentionScoring::probabilities(const Tensor& query, const Tensor& key) const {
  const Tensor s = scores(query, key);
  const Tensor p = s.softmax(-1);
  // A row without anything to attend to has no probabilities.
  return mask.defined() || is_causal ? p.masked_fill(s.eq(-INFINITY), 0) : p;
}

// With p the probabilities: dv = p^T g, ds = p * (g v^T - sum(p * g v^T)), dq = ds k, dk = ds^T q.
std::tuple<Tensor, Tensor, Tensor> attention_backward(const AttentionScoring& scoring,
                                                      const Tensor& grad, const Tensor& query,
                                                      const Tensor& key, const Tensor& value) {
  const Tensor p = scoring.probabilities(query, key);
  const Tensor gv = grad.matmul(value.transpose(-2, -1));
  const Tensor ds = p.mul(gv.sub(p.mul(gv).sum(-1, true))).mul(scoring.scale_for(query));
  return {ds.matmul(key), ds.transpose(-2, -1).matmul(query), p.transpose(-2, -1).matmul(grad)};
}

}  // namespace functx
