// Fused attention: [N, heads, length, width] per example, so the batch joins N.
#include <ATen/ops/constant_pad_nd.h>

#include "attention/canonical.h"
#include "attention/operators.h"
#include "batching/composite.h"
#include "batching/fold.h"

namespace functx {
namespace {

// Of query, key and value.
using Gradients = std::tuple<Tensor, Tensor, Tensor>;

class AttentionCall {
 public:
  template <class... Tensors>
  explicit AttentionCall(const LevelPtr& level, const Tensors&... tensors) : level_(level) {
    (see(tensors), ...);
  }

  bool is_batched() const { return is_batched_; }

  // Queries, keys, values, results and their gradients.
  Tensor fold(const Tensor& tensor) const {
    const Batched x = unwrap_batched(level_, tensor);
    return is_batched_ && x.defined() ? fold_items(x, level_->batch_size) : x.value;
  }

  // What a backward call is about, with a mask that is folded already.
  AttentionTensors fold(const Tensor& grad, const Tensor& query, const Tensor& key,
                        const Tensor& value, const Tensor& mask, const Tensor& output,
                        const Tensor& logsumexp) const {
    return {fold(query), fold(key), fold(value), mask, fold(output), fold(logsumexp), fold(grad)};
  }

  // A mask that broadcasts with [N, heads, queries, keys].
  std::optional<Tensor> fold_mask(const std::optional<Tensor>& mask, const Tensor& query) const {
    if (!mask.has_value() || !mask->defined()) {
      return std::nullopt;
    }
    const Batched x = unwrap_batched(level_, *mask);
    if (!is_batched_ || (!x.is_batched && (x.value.dim() < 4 || x.value.size(0) == 1))) {
      return x.value;
    }
    const Tensor aligned = x.is_batched ? align_rank(x, 4) : ensure_batched(x, level_->batch_size);
    auto sizes = aligned.sym_sizes().vec();
    sizes[1] = query.sym_size(0);
    return aligned.expand_symint(sizes).flatten(0, 1);
  }

  Tensor unfold(const Tensor& result) const {
    return make_batched(level_, is_batched_ && result.defined()
                                    ? Batched{unfold_items(result, level_->batch_size), true}
                                    : Batched{result, false});
  }

  Gradients unfold(const Gradients& gradients) const {
    return {unfold(std::get<0>(gradients)), unfold(std::get<1>(gradients)),
            unfold(std::get<2>(gradients))};
  }

  // Random state and other things that belong to the call as a whole.
  Tensor pass(const Tensor& tensor) const { return unwrap_batched(level_, tensor).value; }
  Tensor pack(const Tensor& tensor) const { return make_batched(level_, {tensor, false}); }

 private:
  void see(const Tensor& tensor) {
    is_batched_ = is_batched_ || (tensor.defined() && unwrap_batched(level_, tensor).is_batched);
  }
  void see(const std::optional<Tensor>& tensor) {
    if (tensor.has_value()) {
      see(*tensor);
    }
  }

  const LevelPtr& level_;
  bool is_batched_ = false;
};

bool fits(const Tensor& query, const Tensor& key, const Tensor& value,
          const std::optional<Tensor>& mask) {
  return query.dim() == 4 && key.dim() == 4 && value.dim() == 4 &&
         (!mask.has_value() || !mask->defined() || mask->dim() == 2 || mask->dim() == 4);
}

bool is_batched_at(const LevelPtr& level, const Tensor& tensor) {
  return tensor.defined() && unwrap_batched(level, tensor).is_batched;
}

// One call draws differently for every item of N, so for every example.
void check_dropout(const LevelPtr& level, double dropout_p) {
  if (dropout_p <= 0) {
    return;
  }
  TORCH_CHECK(level->randomness != Randomness::Error,
              "functx.vmap: called random operation while in randomness error mode: "
              "scaled_dot_product_attention with dropout_p > 0 draws random numbers, and "
              "randomness=\"error\", the default, does not allow that. Pass "
              "randomness=\"different\" to vmap, or set dropout_p=0.");
  TORCH_CHECK(level->randomness != Randomness::Same,
              "functx.vmap: fused scaled_dot_product_attention cannot drop the same elements for "
              "every example (randomness='same'). Use randomness='different', or choose the "
              "unfused attention: with torch.nn.attention.sdpa_kernel(SDPBackend.MATH).");
}

// Fused kernels for accelerators want rows of a bias to begin at aligned addresses. A copy of a
// padded view has lost that: pad again.
std::optional<Tensor> align_bias(const std::optional<Tensor>& bias) {
  constexpr int64_t kAlignment = 16;
  if (!bias.has_value() || bias->dim() < 2 || bias->stride(-2) % kAlignment == 0) {
    return bias;
  }
  const int64_t length = bias->size(-1);
  const int64_t padding = (kAlignment - length % kAlignment) % kAlignment;
  return at::constant_pad_nd(*bias, {0, padding}, 0).slice(-1, 0, length);
}

// --- the choice of a kernel

// Fused kernels take [N, heads, length, width] only, and PyTorch composes the attention of a tensor
// without N or heads of many operators. A batch of such has an N; and under jvp the composition
// would hold the whole score matrix several times.
std::optional<Tensor> attention(const LevelPtr&, bool, const Tensor& query, const Tensor& key,
                                const Tensor& value, const std::optional<Tensor>& mask,
                                double dropout_p, bool is_causal, std::optional<double> scale,
                                bool enable_gqa) {
  const int64_t rank = query.dim();
  const bool has_one_rank = key.dim() == rank && value.dim() == rank;
  const bool has_mask = mask.has_value() && mask->defined();
  if (dropout_p > 0 || !has_one_rank || (rank != 2 && rank != 3) ||
      (has_mask && (mask->dim() < 2 || mask->dim() > rank))) {
    return std::nullopt;
  }
  const auto widen = [](Tensor x) {
    while (x.dim() < 4) {
      x = x.unsqueeze(0);
    }
    return x;
  };
  Tensor result = ops::scaled_dot_product_attention::call(
      widen(query), widen(key), widen(value), has_mask && mask->dim() > 2 ? widen(*mask) : mask,
      dropout_p, is_causal, scale, enable_gqa);
  while (result.dim() > rank) {
    result = result.squeeze(0);
  }
  return result;
}

// Whether a tape below has to differentiate the gradients again, which no kernel's backward lets
// it.
bool is_differentiated(double dropout_p, const AttentionTensors& x) {
  return dropout_p == 0 && is_recorded(x.grad, x.query, x.key, x.value, x.mask);
}

// --- the CPU's kernel

std::tuple<Tensor, Tensor> flash_for_cpu(const LevelPtr& level, const Tensor& query,
                                         const Tensor& key, const Tensor& value, double dropout_p,
                                         bool is_causal, const std::optional<Tensor>& mask,
                                         std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_flash_attention_for_cpu;
  check_has_scores(query, key);
  const AttentionCall call(level, query, key, value, mask);
  if (call.is_batched() && !fits(query, key, value, mask)) {
    return by_loop<Op>(query, key, value, dropout_p, is_causal, mask, scale);
  }
  check_dropout(level, dropout_p);
  const Tensor q = call.fold(query), k = call.fold(key), v = call.fold(value);
  const auto bias = call.fold_mask(mask, query);
  if (dropout_p == 0 && is_recorded(bias.value_or(Tensor()))) {
    // The kernel has no gradient of the mask.
    const CanonicalAttention canonical({q, k, v, *bias, {}, {}, {}});
    const auto results = written_out(canonical.primals(), scoring_from_start(q, is_causal, scale));
    return {call.unfold(results.output.to(q.scalar_type())),
            call.unfold(results.logsumexp.squeeze(-1))};
  }
  auto [output, logsumexp] = Op::call(q, k, v, dropout_p, is_causal, bias, scale);
  return {call.unfold(output), call.unfold(logsumexp)};
}

std::tuple<Tensor, Tensor, Tensor> flash_for_cpu_backward(
    const LevelPtr& level, const Tensor& grad, const Tensor& query, const Tensor& key,
    const Tensor& value, const Tensor& output, const Tensor& logsumexp, double dropout_p,
    bool is_causal, const std::optional<Tensor>& mask, std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_flash_attention_for_cpu_backward;
  check_has_heads(query, key);
  const AttentionCall call(level, grad, query, key, value, output, logsumexp, mask);
  if (call.is_batched() && (dropout_p > 0 || !fits(query, key, value, mask))) {
    return by_loop<Op>(grad, query, key, value, output, logsumexp, dropout_p, is_causal, mask,
                       scale);
  }
  const auto bias = call.fold_mask(mask, query);
  const AttentionTensors x =
      call.fold(grad, query, key, value, bias.value_or(Tensor()), output, logsumexp);
  return call.unfold(is_differentiated(dropout_p, x)
                         ? differentiable_backward(x, scoring_from_start(x.query, is_causal, scale))
                         : Op::call(x.grad, x.query, x.key, x.value, x.output, x.logsumexp,
                                    dropout_p, is_causal, bias, scale));
}

// --- kernels for accelerators

// output, logsumexp, cum_seq_q, cum_seq_k, max_q, max_k, two of random state, debug mask
using FlashResults =
    std::tuple<Tensor, Tensor, Tensor, Tensor, c10::SymInt, c10::SymInt, Tensor, Tensor, Tensor>;

FlashResults pack_flash(const AttentionCall& call, const FlashResults& r) {
  return {call.unfold(std::get<0>(r)),
          call.unfold(std::get<1>(r)),
          call.pack(std::get<2>(r)),
          call.pack(std::get<3>(r)),
          std::get<4>(r),
          std::get<5>(r),
          call.pack(std::get<6>(r)),
          call.pack(std::get<7>(r)),
          call.pack(std::get<8>(r))};
}

// With dropout, a backward call must see the items in the places its forward call did, or it would
// drop others.
bool same_places(const LevelPtr& level, double dropout_p, const Tensor& logsumexp) {
  return dropout_p <= 0 || is_batched_at(level, logsumexp);
}

bool has_own_seeds(const LevelPtr& level, const Tensor& seed, const Tensor& offset) {
  return is_batched_at(level, seed) || is_batched_at(level, offset);
}

FlashResults flash(const LevelPtr& level, const Tensor& query, const Tensor& key,
                   const Tensor& value, double dropout_p, bool is_causal, bool debug,
                   std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_flash_attention;
  const AttentionCall call(level, query, key, value);
  if (call.is_batched() && (debug || !fits(query, key, value, {}))) {
    return by_loop<Op>(query, key, value, dropout_p, is_causal, debug, scale);
  }
  check_dropout(level, dropout_p);
  return pack_flash(call, Op::call(call.fold(query), call.fold(key), call.fold(value), dropout_p,
                                   is_causal, debug, scale));
}

std::tuple<Tensor, Tensor, Tensor> flash_backward(
    const LevelPtr& level, const Tensor& grad, const Tensor& query, const Tensor& key,
    const Tensor& value, const Tensor& output, const Tensor& logsumexp, const Tensor& cum_seq_q,
    const Tensor& cum_seq_k, c10::SymInt max_q, c10::SymInt max_k, double dropout_p, bool is_causal,
    const Tensor& seed, const Tensor& offset, std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_flash_attention_backward;
  const AttentionCall call(level, grad, query, key, value, output, logsumexp);
  if (has_own_seeds(level, seed, offset) ||
      (call.is_batched() &&
       (!same_places(level, dropout_p, logsumexp) || !fits(query, key, value, {})))) {
    return by_loop<Op>(grad, query, key, value, output, logsumexp, cum_seq_q, cum_seq_k, max_q,
                       max_k, dropout_p, is_causal, seed, offset, scale);
  }
  const AttentionTensors x = call.fold(grad, query, key, value, Tensor(), output, logsumexp);
  return call.unfold(
      is_differentiated(dropout_p, x)
          ? differentiable_backward(x, scoring_from_end(x.query, x.key, is_causal, scale))
          : Op::call(x.grad, x.query, x.key, x.value, x.output, x.logsumexp, call.pass(cum_seq_q),
                     call.pass(cum_seq_k), max_q, max_k, dropout_p, is_causal, call.pass(seed),
                     call.pass(offset), scale));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> efficient(const LevelPtr& level, const Tensor& query,
                                                     const Tensor& key, const Tensor& value,
                                                     const std::optional<Tensor>& bias,
                                                     bool compute_logsumexp, double dropout_p,
                                                     bool is_causal, std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_efficient_attention;
  const AttentionCall call(level, query, key, value, bias);
  if (call.is_batched() && !fits(query, key, value, bias)) {
    return by_loop<Op>(query, key, value, bias, compute_logsumexp, dropout_p, is_causal, scale);
  }
  check_dropout(level, dropout_p);
  auto [output, logsumexp, seed, offset] = Op::call(
      call.fold(query), call.fold(key), call.fold(value), align_bias(call.fold_mask(bias, query)),
      compute_logsumexp, dropout_p, is_causal, scale);
  return {call.unfold(output), call.unfold(logsumexp), call.pack(seed), call.pack(offset)};
}

// Of query, key, value and bias.
using BiasGradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// The gradient of a bias has the shape of the bias the call was given.
BiasGradients unfold_with_bias(const AttentionCall& call, const std::optional<Tensor>& bias,
                               const BiasGradients& gradients) {
  const auto& [query, key, value, bias_gradient] = gradients;
  return {call.unfold(query), call.unfold(key), call.unfold(value),
          bias.has_value() ? call.unfold(bias_gradient) : call.pack(bias_gradient)};
}

// Whether the N of `query` shares a bias, whose gradient would be summed over examples as well.
bool is_narrow(const Tensor& bias, const Tensor& query) {
  return bias.defined() && (bias.dim() != 4 || bias.size(0) != query.size(0));
}

// A bias [N, heads, queries, keys] whose gradient is wanted has to have an N of its own per
// example.
std::optional<Tensor> fold_bias(const AttentionCall& call, const Tensor& bias, const Tensor& query,
                                bool wants_gradient) {
  if (!bias.defined()) {
    return std::nullopt;
  }
  return align_bias(wants_gradient && bias.dim() == 4 ? std::make_optional(call.fold(bias))
                                                      : call.fold_mask(bias, query));
}

// A backward call of a kernel that has a gradient of the bias, which is `x.mask`. `loop` makes it
// for each example, and `kernel` with the tensors that it is given.
template <class Loop, class Kernel>
BiasGradients backward_with_bias(const LevelPtr& level, const AttentionTensors& x,
                                 const Tensor& seed, const Tensor& offset, double dropout_p,
                                 bool wants_bias, bool is_causal, std::optional<double> scale,
                                 const Loop& loop, const Kernel& kernel) {
  const AttentionCall call(level, x.grad, x.query, x.key, x.value, x.mask, x.output, x.logsumexp);
  if (has_own_seeds(level, seed, offset) ||
      (call.is_batched() &&
       (!same_places(level, dropout_p, x.logsumexp) || !fits(x.query, x.key, x.value, x.mask) ||
        (wants_bias && is_narrow(x.mask, x.query))))) {
    return loop();
  }
  const auto bias = fold_bias(call, x.mask, x.query, wants_bias);
  const AttentionTensors folded =
      call.fold(x.grad, x.query, x.key, x.value, bias.value_or(Tensor()), x.output, x.logsumexp);
  return unfold_with_bias(
      call, bias,
      is_differentiated(dropout_p, folded)
          ? differentiable_backward_with_mask(
                folded, scoring_from_start(folded.query, is_causal, scale), wants_bias)
          : kernel(call, folded));
}

BiasGradients efficient_backward(const LevelPtr& level, const Tensor& grad, const Tensor& query,
                                 const Tensor& key, const Tensor& value, const Tensor& bias,
                                 const Tensor& output, const Tensor& logsumexp, const Tensor& seed,
                                 const Tensor& offset, double dropout_p, std::array<bool, 4> mask,
                                 bool is_causal, std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_efficient_attention_backward;
  return backward_with_bias(
      level, {query, key, value, bias, output, logsumexp, grad}, seed, offset, dropout_p, mask[3],
      is_causal, scale,
      [&] {
        return by_loop<Op>(grad, query, key, value, bias, output, logsumexp, seed, offset,
                           dropout_p, mask, is_causal, scale);
      },
      [&](const AttentionCall& call, const AttentionTensors& x) {
        return Op::call(x.grad, x.query, x.key, x.value, x.mask, x.output, x.logsumexp,
                        call.pass(seed), call.pass(offset), dropout_p, mask, is_causal, scale);
      });
}

FlashResults cudnn(const LevelPtr& level, const Tensor& query, const Tensor& key,
                   const Tensor& value, const std::optional<Tensor>& bias, bool compute_logsumexp,
                   double dropout_p, bool is_causal, bool debug, std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_cudnn_attention;
  const AttentionCall call(level, query, key, value, bias);
  if (call.is_batched() && (debug || !fits(query, key, value, bias))) {
    return by_loop<Op>(query, key, value, bias, compute_logsumexp, dropout_p, is_causal, debug,
                       scale);
  }
  check_dropout(level, dropout_p);
  return pack_flash(call, Op::call(call.fold(query), call.fold(key), call.fold(value),
                                   call.fold_mask(bias, query), compute_logsumexp, dropout_p,
                                   is_causal, debug, scale));
}

std::tuple<Tensor, Tensor, Tensor> cudnn_backward(
    const LevelPtr& level, const Tensor& grad, const Tensor& query, const Tensor& key,
    const Tensor& value, const Tensor& output, const Tensor& logsumexp, const Tensor& seed,
    const Tensor& offset, const Tensor& bias, const Tensor& cum_seq_q, const Tensor& cum_seq_k,
    c10::SymInt max_q, c10::SymInt max_k, double dropout_p, bool is_causal,
    std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_cudnn_attention_backward;
  const AttentionCall call(level, grad, query, key, value, output, logsumexp, bias);
  if (has_own_seeds(level, seed, offset) ||
      (call.is_batched() &&
       (!same_places(level, dropout_p, logsumexp) || !fits(query, key, value, bias)))) {
    return by_loop<Op>(grad, query, key, value, output, logsumexp, seed, offset, bias, cum_seq_q,
                       cum_seq_k, max_q, max_k, dropout_p, is_causal, scale);
  }
  const auto folded_bias = call.fold_mask(bias, query).value_or(Tensor());
  const AttentionTensors x = call.fold(grad, query, key, value, folded_bias, output, logsumexp);
  return call.unfold(is_differentiated(dropout_p, x)
                         ? differentiable_backward(x, scoring_from_start(x.query, is_causal, scale))
                         : Op::call(x.grad, x.query, x.key, x.value, x.output, x.logsumexp,
                                    call.pass(seed), call.pass(offset), x.mask,
                                    call.pass(cum_seq_q), call.pass(cum_seq_k), max_q, max_k,
                                    dropout_p, is_causal, scale));
}

FlashResults overrideable(const LevelPtr& level, const Tensor& query, const Tensor& key,
                          const Tensor& value, const std::optional<Tensor>& bias, double dropout_p,
                          bool is_causal, bool debug, std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_fused_attention_overrideable;
  const AttentionCall call(level, query, key, value, bias);
  if (call.is_batched() && (debug || !fits(query, key, value, bias))) {
    return by_loop<Op>(query, key, value, bias, dropout_p, is_causal, debug, scale);
  }
  check_dropout(level, dropout_p);
  return pack_flash(call,
                    Op::call(call.fold(query), call.fold(key), call.fold(value),
                             call.fold_mask(bias, query), dropout_p, is_causal, debug, scale));
}

BiasGradients overrideable_backward(const LevelPtr& level, const Tensor& grad, const Tensor& query,
                                    const Tensor& key, const Tensor& value, const Tensor& bias,
                                    std::array<bool, 4> mask, const Tensor& output,
                                    const Tensor& logsumexp, const Tensor& cum_seq_q,
                                    const Tensor& cum_seq_k, c10::SymInt max_q, c10::SymInt max_k,
                                    double dropout_p, bool is_causal, const Tensor& seed,
                                    const Tensor& offset, std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_fused_attention_overrideable_backward;
  return backward_with_bias(
      level, {query, key, value, bias, output, logsumexp, grad}, seed, offset, dropout_p, mask[3],
      is_causal, scale,
      [&] {
        return by_loop<Op>(grad, query, key, value, bias, mask, output, logsumexp, cum_seq_q,
                           cum_seq_k, max_q, max_k, dropout_p, is_causal, seed, offset, scale);
      },
      [&](const AttentionCall& call, const AttentionTensors& x) {
        return Op::call(x.grad, x.query, x.key, x.value, x.mask, mask, x.output, x.logsumexp,
                        call.pass(cum_seq_q), call.pass(cum_seq_k), max_q, max_k, dropout_p,
                        is_causal, call.pass(seed), call.pass(offset), scale);
      });
}

}  // namespace

FUNCTX_RULES(attention) {
  rewritten<ops::scaled_dot_product_attention, attention>();
  // The unfused form adds the mask to the scores in place.
  spread_argument<ops::_scaled_dot_product_attention_math, 0>();
  level_rule<ops::_scaled_dot_product_flash_attention_for_cpu>(flash_for_cpu);
  level_rule<ops::_scaled_dot_product_flash_attention_for_cpu_backward>(flash_for_cpu_backward);
  level_rule<ops::_scaled_dot_product_flash_attention>(flash);
  level_rule<ops::_scaled_dot_product_flash_attention_backward>(flash_backward);
  level_rule<ops::_scaled_dot_product_efficient_attention>(efficient);
  level_rule<ops::_scaled_dot_product_efficient_attention_backward>(efficient_backward);
  level_rule<ops::_scaled_dot_product_cudnn_attention>(cudnn);
  level_rule<ops::_scaled_dot_product_cudnn_attention_backward>(cudnn_backward);
  level_rule<ops::_scaled_dot_product_fused_attention_overrideable>(overrideable);
  level_rule<ops::_scaled_dot_product_fused_attention_overrideable_backward>(overrideable_backward);
}

}  // namespace functx
