// Derivatives of scaled dot product attention, computed in blocks of the score matrix from what a
// fused kernel returned.
//
// With scores s = scale * q k^T + mask, probabilities p = exp(s - logsumexp(s)) and output o = p v,
// and dots for tangents, the derivative of the softmax is p. = p * (s. - sum(p * s.)), where the
// sum over the keys is the tangent of logsumexp. As in FlashAttention (Dao, Fu, Ermon, Rudra and
// Ré, 2022), p is computed anew for each block, and the backward pass has ds = p * (g v^T - sum(g *
// o)).
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

namespace functx {

using at::Tensor;

// The tensors of one call, or their tangents: [items, heads, queries or keys, width], all with the
// same heads. One that is undefined is zero. Tangents, and `grad`, may have more dimensions in
// front, for several of them at the same primals.
struct AttentionTensors {
  Tensor query;
  Tensor key;
  Tensor value;
  Tensor mask;  // boolean (true: take part) or added to the scores; broadcasts with them
  Tensor output;
  Tensor logsumexp;  // [items, heads, queries, 1]; anything but -inf where no key takes part
  Tensor grad;       // of the output

  static constexpr size_t kCount = 7;
  static AttentionTensors of(const std::vector<Tensor>& tensors);
  std::vector<Tensor> all() const;

  template <class Visitor>
  void each(const Visitor& visit) const {
    for (const Tensor* tensor : {&query, &key, &value, &mask, &output, &logsumexp, &grad}) {
      visit(*tensor);
    }
  }

  template <class Predicate>
  bool any(const Predicate& holds) const {
    bool found = false;
    each([&](const Tensor& tensor) { found = found || holds(tensor); });
    return found;
  }
};

struct Scoring {
  // Query q sees the keys up to q + diagonal; all if there is none.
  std::optional<int64_t> diagonal;
  double scale;
};

// Each takes primals and tangents, and so that they can be written about together, returns a list.
// They are made of ordinary operators, with output and logsumexp as constants to any tape.
using AttentionFormula = std::vector<Tensor> (*)(const AttentionTensors&, const AttentionTensors&,
                                                 const Scoring&);

// Tangents of output and logsumexp; and the output itself, if it is not given.
std::vector<Tensor> blockwise_jvp(const AttentionTensors& x, const AttentionTensors& t,
                                  const Scoring& scoring);
// Gradients of query, key and value; no tangents are needed.
std::vector<Tensor> blockwise_vjp(const AttentionTensors& x, const AttentionTensors& t,
                                  const Scoring& scoring);
// Tangents of these gradients; those of output and logsumexp must be given.
std::vector<Tensor> blockwise_vjp_jvp(const AttentionTensors& x, const AttentionTensors& t,
                                      const Scoring& scoring);

// Gradient of a mask that is added, in its shape, and the tangent of this gradient. Not in blocks:
// it is a matrix of the size of the scores itself.
std::vector<Tensor> mask_vjp_jvp(const AttentionTensors& x, const AttentionTensors& t,
                                 const Scoring& scoring);

// `x` with output and logsumexp as functions of the other tensors that a tape can see, from the
// whole score matrix.
AttentionTensors written_out(const AttentionTensors& x, const Scoring& scoring);

}  // namespace functx
