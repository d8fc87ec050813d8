#include "attention/canonical.h"

#include <ATen/ops/constant_pad_nd.h>

#include <cmath>
#include <limits>

#include "attention/blocks.h"
#include "attention/operators.h"
#include "core/each_of.h"

namespace functx {
namespace {

constexpr const char* kAttention =
    "torch.nn.functional.scaled_dot_product_attention, which chooses a kernel that does.";

// Kernels accumulate in float what they take in half precision.
Tensor widened(const Tensor& tensor) {
  return tensor.defined() && is_reduced(tensor) ? tensor.to(at::kFloat) : tensor;
}

// [N, G, S, E] for the heads of the queries, each of which has its group's.
Tensor repeated(const Tensor& tensor, const c10::SymInt& heads) {
  if (!tensor.defined() || tensor.sym_size(1) == heads) {
    return tensor;
  }
  auto sizes = tensor.sym_sizes().vec();
  sizes.insert(sizes.begin() + 2, each_of(heads, sizes[1]));
  return tensor.unsqueeze(2).expand_symint(sizes).flatten(1, 2);
}

Tensor of_rank_four(Tensor mask) {
  while (mask.defined() && mask.dim() < 4) {
    mask = mask.unsqueeze(0);
  }
  return mask;
}

Tensor column(Tensor logsumexp, const c10::SymInt& queries) {
  if (!logsumexp.defined()) {
    return logsumexp;
  }
  if (logsumexp.sym_size(2) != queries) {
    logsumexp = logsumexp.narrow_symint(2, 0, queries);
  }
  return logsumexp.dim() == 4 ? logsumexp : logsumexp.unsqueeze(-1);
}

}  // namespace

// PyTorch calls the backward of a kernel without a gradient, too.
std::tuple<Tensor, Tensor, Tensor> differentiable_backward(const AttentionTensors& x,
                                                           const Scoring& scoring) {
  if (!x.grad.defined()) {
    return {};
  }
  const auto gradients = attention_vjp(CanonicalAttention(x).primals(), scoring);
  const auto of = [&](size_t i, const Tensor& input) {
    return CanonicalAttention::gradient(gradients[i], input).to(input.scalar_type());
  };
  return {of(0, x.query), of(1, x.key), of(2, x.value)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> differentiable_backward_with_mask(
    const AttentionTensors& x, const Scoring& scoring, bool wants_mask) {
  Tensor of_mask;
  if (wants_mask && x.grad.defined()) {
    const auto gradients = attention_mask_vjp_jvp(CanonicalAttention(x).primals(), {}, scoring);
    of_mask = CanonicalAttention::mask(gradients[0], x.mask).to(x.mask.scalar_type());
  }
  return std::tuple_cat(differentiable_backward(x, scoring), std::make_tuple(std::move(of_mask)));
}

void check_has_heads(const Tensor& query, const Tensor& key) {
  TORCH_CHECK(
      query.dim() != 4 || key.dim() != 4 || (query.sym_size(1) != 0 && key.sym_size(1) != 0),
      "functx: the fused attention of the CPU takes no tensors without heads, but query has "
      "shape ",
      query.sym_sizes(), " and key ", key.sym_sizes(), ". Call ", kAttention);
}

void check_has_scores(const Tensor& query, const Tensor& key) {
  check_has_heads(query, key);
  TORCH_CHECK(
      query.dim() != 4 || key.dim() != 4 || (query.sym_size(2) != 0 && key.sym_size(2) != 0),
      "functx: the fused attention of the CPU takes no tensors without queries or keys, but "
      "query has shape ",
      query.sym_sizes(), " and key ", key.sym_sizes(), ". Call ", kAttention);
}

bool is_reduced(const Tensor& tensor) {
  return tensor.scalar_type() == at::kHalf || tensor.scalar_type() == at::kBFloat16;
}

Scoring scoring_from_start(const Tensor& query, bool is_causal, std::optional<double> scale) {
  return {is_causal ? std::make_optional<int64_t>(0) : std::nullopt,
          scale.value_or(1 / std::sqrt(static_cast<double>(size_of(query, -1))))};
}

Scoring scoring_from_end(const Tensor& query, const Tensor& key, bool is_causal,
                         std::optional<double> scale) {
  Scoring scoring = scoring_from_start(query, is_causal, scale);
  if (is_causal) {
    scoring.diagonal = size_of(key, -2) - size_of(query, -2);
  }
  return scoring;
}

CanonicalAttention::CanonicalAttention(const AttentionTensors& x)
    : heads_(x.query.sym_size(1)), queries_(x.query.sym_size(2)), primals_(converted(x)) {
  Tensor& logsumexp = primals_.logsumexp;
  if (logsumexp.defined() && x.mask.defined()) {
    // Of a query that sees no key; some kernels say so.
    constexpr double nothing = -std::numeric_limits<double>::infinity();
    logsumexp = logsumexp.masked_fill(logsumexp.eq(nothing), 0);
  }
}

AttentionTensors CanonicalAttention::converted(const AttentionTensors& tensors) const {
  return {widened(tensors.query),
          repeated(widened(tensors.key), heads_),
          repeated(widened(tensors.value), heads_),
          of_rank_four(widened(tensors.mask)),
          widened(tensors.output),
          column(tensors.logsumexp, queries_),
          widened(tensors.grad)};
}

Tensor CanonicalAttention::gradient(const Tensor& canonical, const Tensor& like) {
  if (!canonical.defined() || canonical.sym_size(1) == like.sym_size(1)) {
    return canonical;
  }
  const c10::SymInt heads = like.sym_size(1);
  return canonical.unflatten_symint(1, {heads, each_of(canonical.sym_size(1), heads)}).sum(2);
}

Tensor CanonicalAttention::mask(const Tensor& canonical, const Tensor& like) {
  return canonical.defined() ? canonical.reshape_symint(like.sym_sizes()) : canonical;
}

Tensor CanonicalAttention::logsumexp(const Tensor& canonical, const Tensor& like) {
  if (!canonical.defined() || like.dim() == 4) {
    return canonical;
  }
  const c10::SymInt padding = like.sym_size(2) - canonical.sym_size(2);
  const Tensor rows = canonical.squeeze(-1);
  return padding == 0 ? rows : at::constant_pad_nd_symint(rows, {0, padding}, 0);
}

}  // namespace functx
