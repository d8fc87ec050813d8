// Fused attention, for which PyTorch has no forward derivative. The primal comes from the fused
// kernel; the tangent from the probabilities, which are computed anew from what that returns.
#include <cmath>

#include "core/attention_math.h"
#include "forward_ad/families.h"

namespace functx {
namespace {

// The probabilities; from what the fused kernel returned, unless a tape below has to see how they
// depend on query and key. A row without anything to attend to has logsumexp -inf, and none.
Tensor probabilities(const AttentionScoring& scoring, const Tensor& query, const Tensor& key,
                     const Tensor& logsumexp) {
  if (detail::is_recorded_below(query, key, scoring.mask)) {
    return scoring.probabilities(query, key);
  }
  const Tensor s = scoring.scores(query, key);
  const Tensor p = s.sub(logsumexp.to(s.scalar_type()).unsqueeze(-1)).exp();
  return scoring.mask.defined() || scoring.is_causal ? p.masked_fill(s.eq(-INFINITY), 0) : p;
}

AttentionScoring scoring_of(bool is_causal, const Dual& mask, double dropout_p,
                            std::optional<double> scale) {
  TORCH_CHECK(dropout_p == 0,
              "functx.jvp: fused attention with dropout has no forward derivative, because the "
              "kernel does not return what it dropped. Use dropout_p=0, or "
              "torch.nn.attention.sdpa_kernel(SDPBackend.MATH).");
  return {is_causal, mask.primal, scale};
}

Tensor times_transposed(const Tensor& a, const Tensor& b) { return a.matmul(b.transpose(-2, -1)); }

// Of the scores; undefined if nothing they are made of has a tangent.
Tensor scores_tangent(const AttentionScoring& scoring, const Dual& query, const Dual& key,
                      const Dual& mask) {
  Tensor tangent;
  if (query.has_tangent()) {
    tangent = times_transposed(query.tangent, key.primal);
  }
  if (key.has_tangent()) {
    tangent = sum_of(std::move(tangent), times_transposed(query.primal, key.tangent));
  }
  if (tangent.defined()) {
    tangent = tangent.mul(scoring.scale_for(query.primal));
  }
  return sum_of(std::move(tangent), mask.tangent);
}

std::tuple<Dual, Dual> flash_attention_for_cpu(const Dual& query, const Dual& key,
                                               const Dual& value, double dropout_p, bool is_causal,
                                               const Dual& mask, std::optional<double> scale) {
  const auto scoring = scoring_of(is_causal, mask, dropout_p, scale);
  auto [output, logsumexp] = ops::_scaled_dot_product_flash_attention_for_cpu::call(
      query.primal, key.primal, value.primal, dropout_p, is_causal,
      mask.defined() ? std::make_optional(mask.primal) : std::nullopt, scale);
  const Tensor p = probabilities(scoring, query.primal, key.primal, logsumexp);
  Tensor tangent, logsumexp_tangent;
  const Tensor s = scores_tangent(scoring, query, key, mask);
  if (s.defined()) {
    const Tensor mean = p.mul(s).sum(-1, true);
    tangent = p.mul(s.sub(mean)).matmul(value.primal);
    logsumexp_tangent = mean.squeeze(-1);
  }
  if (value.has_tangent()) {
    tangent = sum_of(std::move(tangent), p.matmul(value.tangent));
  }
  return {conform(std::move(tangent), std::move(output)),
          conform(std::move(logsumexp_tangent), std::move(logsumexp))};
}

// With p the probabilities: dv = p^T g, ds = p * (g v^T - d) where d = sum(g * out), dq = ds k and
// dk = ds^T q. Output and logsumexp are functions of the inputs here, whether or not they have
// tangents.
std::tuple<Dual, Dual, Dual> flash_attention_for_cpu_backward(
    const Dual& grad, const Dual& query, const Dual& key, const Dual& value, const Dual& output,
    const Dual& logsumexp, double dropout_p, bool is_causal, const Dual& mask,
    std::optional<double> scale) {
  const auto scoring = scoring_of(is_causal, mask, dropout_p, scale);
  const Tensor &q = query.primal, &k = key.primal, &v = value.primal, &g = grad.primal;
  const Tensor p = probabilities(scoring, q, k, logsumexp.primal);
  const Tensor gv = times_transposed(g, v);
  const Tensor d = g.mul(output.primal).sum(-1, true);
  const Tensor ds = p.mul(gv.sub(d)).mul(scoring.scale_for(q));
  auto [dq, dk, dv] =
      detail::is_recorded_below(g, q, k, v)
          ? attention_backward(scoring, g, q, k, v)
          : ops::_scaled_dot_product_flash_attention_for_cpu_backward::call(
                g, q, k, v, output.primal, logsumexp.primal, dropout_p, is_causal,
                mask.defined() ? std::make_optional(mask.primal) : std::nullopt, scale);

  Tensor p_tangent;
  if (const Tensor s = scores_tangent(scoring, query, key, mask); s.defined()) {
    p_tangent = p.mul(s.sub(p.mul(s).sum(-1, true)));
  }
  // Of g v^T, and of p * (g v^T - d), in which d is the sum of p * g v^T.
  Tensor gv_tangent;
  if (grad.has_tangent()) {
    gv_tangent = times_transposed(grad.tangent, v);
  }
  if (value.has_tangent()) {
    gv_tangent = sum_of(std::move(gv_tangent), times_transposed(g, value.tangent));
  }
  Tensor ds_tangent;
  if (p_tangent.defined()) {
    const Tensor d_tangent = p_tangent.mul(gv).sum(-1, true);
    ds_tangent = p_tangent.mul(gv.sub(d)).sub(p.mul(d_tangent));
  }
  if (gv_tangent.defined()) {
    const Tensor d_tangent = p.mul(gv_tangent).sum(-1, true);
    ds_tangent = sum_of(std::move(ds_tangent), p.mul(gv_tangent.sub(d_tangent)));
  }
  if (ds_tangent.defined()) {
    ds_tangent = ds_tangent.mul(scoring.scale_for(q));
  }

  const auto product = [](const Tensor& a, const Tensor& b) {
    return a.defined() && b.defined() ? a.matmul(b) : Tensor();
  };
  const auto transposed = [](const Tensor& a) { return a.defined() ? a.transpose(-2, -1) : a; };
  return {
      conform(sum_of(product(ds_tangent, k), product(ds, key.tangent)), std::move(dq)),
      conform(sum_of(product(transposed(ds_tangent), q), product(transposed(ds), query.tangent)),
              std::move(dk)),
      conform(sum_of(product(transposed(p_tangent), g), product(transposed(p), grad.tangent)),
              std::move(dv))};
}

}  // namespace

FUNCTX_RULES(jvp_attention) {
  dual_rule<ops::_scaled_dot_product_flash_attention_for_cpu, flash_attention_for_cpu>();
  dual_rule<ops::_scaled_dot_product_flash_attention_for_cpu_backward,
            flash_attention_for_cpu_backward>();
}

}  // namespace functx
