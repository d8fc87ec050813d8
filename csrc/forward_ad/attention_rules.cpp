// Fused attention, for which PyTorch has no forward derivative. The primal comes from the fused
// kernel, and the tangent, in blocks, from what that returns.
#include "attention/canonical.h"
#include "attention/operators.h"
#include "forward_ad/families.h"
#include "reverse_ad/recordable.h"

namespace functx {
namespace {

void check_dropout(double dropout_p) {
  TORCH_CHECK(dropout_p == 0,
              "functx.jvp: fused attention with dropout has no forward derivative, because the "
              "kernel does not return what it dropped. Use dropout_p=0, or "
              "torch.nn.attention.sdpa_kernel(SDPBackend.MATH).");
}

// The inputs of a call.
struct Inputs {
  const Dual& query;
  const Dual& key;
  const Dual& value;
  const Dual& mask;

  AttentionTensors primals() const {
    return {query.primal, key.primal, value.primal, mask.primal, {}, {}, {}};
  }
  AttentionTensors tangents() const {
    return {query.tangent, key.tangent, value.tangent, mask.tangent, {}, {}, {}};
  }
  bool move_scores() const {
    return query.has_tangent() || key.has_tangent() || mask.has_tangent();
  }
};

template <class... Tensors>
using DualsAnd = std::tuple<Dual, Dual, Tensors...>;

// What a kernel returns, output and logsumexp first, as duals.
template <class... Rest>
DualsAnd<Rest...> with_tangents(const Inputs& inputs, const Scoring& scoring,
                                const std::tuple<Tensor, Tensor, Rest...>& results) {
  const auto dual = [&](const Tensor& output, const Tensor& logsumexp, const Rest&... rest) {
    AttentionTensors x = inputs.primals();
    // A kernel rounds its output to half precision after it was computed: the formula does without.
    x.output = is_reduced(output) ? Tensor() : output;
    x.logsumexp = logsumexp;
    const CanonicalAttention canonical(x);
    const auto tangents =
        attention_jvp(canonical.primals(), canonical.tangents(inputs.tangents()), scoring);
    Tensor moved =
        inputs.move_scores() ? CanonicalAttention::logsumexp(tangents[1], logsumexp) : Tensor();
    return DualsAnd<Rest...>{conform(tangents[0], output), conform(std::move(moved), logsumexp),
                             rest...};
  };
  return std::apply(dual, results);
}

// A backward call. Output and logsumexp are functions of the inputs, whether or not they have
// tangents.
class Backward {
 public:
  Backward(const Inputs& inputs, const Dual& grad, const Dual& output, const Dual& logsumexp,
           const Scoring& scoring)
      : scoring_(scoring),
        x_(with(inputs.primals(), output.primal, logsumexp.primal, grad.primal)),
        canonical_(x_),
        tangents_(canonical_.tangents(
            with(inputs.tangents(), output.tangent, logsumexp.tangent, grad.tangent))) {
    complete_tangents(inputs.move_scores(), inputs.value.has_tangent());
  }

  // Of query, key and value; `gradients` are the kernel's.
  std::tuple<Dual, Dual, Dual> duals(const std::tuple<Tensor, Tensor, Tensor>& gradients) const {
    const auto tangents = attention_vjp_jvp(canonical_.primals(), tangents_, scoring_);
    const auto dual = [&](const Tensor& gradient, size_t i) {
      return gradient.defined()
                 ? conform(CanonicalAttention::gradient(tangents[i], gradient), gradient)
                 : Dual{};
    };
    return {dual(std::get<0>(gradients), 0), dual(std::get<1>(gradients), 1),
            dual(std::get<2>(gradients), 2)};
  }

  // Of these and a mask, whose gradient may be undefined.
  std::tuple<Dual, Dual, Dual, Dual> duals(
      const std::tuple<Tensor, Tensor, Tensor, Tensor>& gradients) const {
    const auto& [query, key, value, mask] = gradients;
    Dual of_mask{mask, {}};
    if (mask.defined()) {
      const auto tangent = attention_mask_vjp_jvp(canonical_.primals(), tangents_, scoring_)[1];
      of_mask = conform(CanonicalAttention::mask(tangent, mask), mask);
    }
    return std::tuple_cat(duals(std::make_tuple(query, key, value)),
                          std::make_tuple(std::move(of_mask)));
  }

  // Whether a tape below has to see how the gradients depend on the inputs, which it cannot if a
  // kernel computes them.
  bool is_differentiated() const {
    return is_recorded(x_.grad, x_.query, x_.key, x_.value, x_.mask);
  }
  // As such a kernel returns them.
  template <class Gradients>
  Gradients gradients(bool wants_mask) const {
    if constexpr (std::tuple_size_v<Gradients> == 3) {
      return differentiable_backward(x_, scoring_);
    } else {
      return differentiable_backward_with_mask(x_, scoring_, wants_mask);
    }
  }

 private:
  static AttentionTensors with(AttentionTensors inputs, const Tensor& output,
                               const Tensor& logsumexp, const Tensor& grad) {
    inputs.output = output;
    inputs.logsumexp = logsumexp;
    inputs.grad = grad;
    return inputs;
  }

  void complete_tangents(bool scores_move, bool value_moves) {
    if (!scores_move && !value_moves) {
      tangents_.output = tangents_.logsumexp = Tensor();
    } else if (!tangents_.output.defined() || tangents_.logsumexp.defined() != scores_move) {
      const auto moved = attention_jvp(canonical_.primals(), tangents_, scoring_);
      tangents_.output = moved[0];
      tangents_.logsumexp = scores_move ? moved[1] : Tensor();
    }
  }

  Scoring scoring_;
  AttentionTensors x_;
  CanonicalAttention canonical_;
  AttentionTensors tangents_;
};

// The gradients that `kernel` returns, as duals.
template <class Kernel>
auto gradients_with_tangents(const Inputs& inputs, const Dual& grad, const Dual& output,
                             const Dual& logsumexp, double dropout_p, const Scoring& scoring,
                             const Kernel& kernel, bool wants_mask = false) {
  using Gradients = decltype(kernel());
  using Duals = decltype(std::declval<Backward>().duals(std::declval<Gradients>()));
  check_dropout(dropout_p);
  if (!grad.defined()) {
    return Duals{};
  }
  const Backward backward(inputs, grad, output, logsumexp, scoring);
  return backward.duals(
      backward.is_differentiated() ? backward.template gradients<Gradients>(wants_mask) : kernel());
}

std::optional<Tensor> optional(const Dual& mask) {
  return mask.defined() ? std::make_optional(mask.primal) : std::nullopt;
}

// --- the CPU's kernel

// As it returns them, for a tape that has to see the gradient of the mask, of which it has none.
std::tuple<Tensor, Tensor> with_recorded_mask(const Inputs& inputs, const Scoring& scoring) {
  const CanonicalAttention canonical(inputs.primals());
  const AttentionTensors results = written_out(canonical.primals(), scoring);
  return {results.output.to(inputs.query.primal.scalar_type()), results.logsumexp.squeeze(-1)};
}

std::tuple<Dual, Dual> flash_for_cpu(const Dual& query, const Dual& key, const Dual& value,
                                     double dropout_p, bool is_causal, const Dual& mask,
                                     std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_flash_attention_for_cpu;
  check_dropout(dropout_p);
  check_has_scores(query.primal, key.primal);
  const Inputs inputs{query, key, value, mask};
  const auto scoring = scoring_from_start(query.primal, is_causal, scale);
  return with_tangents(inputs, scoring,
                       is_recorded(mask.primal)
                           ? with_recorded_mask(inputs, scoring)
                           : Op::call(query.primal, key.primal, value.primal, dropout_p, is_causal,
                                      optional(mask), scale));
}

std::tuple<Dual, Dual, Dual> flash_for_cpu_backward(const Dual& grad, const Dual& query,
                                                    const Dual& key, const Dual& value,
                                                    const Dual& output, const Dual& logsumexp,
                                                    double dropout_p, bool is_causal,
                                                    const Dual& mask, std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_flash_attention_for_cpu_backward;
  check_has_heads(query.primal, key.primal);
  return gradients_with_tangents({query, key, value, mask}, grad, output, logsumexp, dropout_p,
                                 scoring_from_start(query.primal, is_causal, scale), [&] {
                                   return Op::call(grad.primal, query.primal, key.primal,
                                                   value.primal, output.primal, logsumexp.primal,
                                                   dropout_p, is_causal, optional(mask), scale);
                                 });
}

std::tuple<Tensor, Tensor, Tensor> flash_for_cpu_gradient(
    const Tensor& grad, const Tensor& query, const Tensor& key, const Tensor& value,
    const Tensor& output, const Tensor& logsumexp, double, bool is_causal,
    const std::optional<Tensor>& mask, std::optional<double> scale) {
  return differentiable_backward(
      {query, key, value, mask.value_or(Tensor()), output, logsumexp, grad},
      scoring_from_start(query, is_causal, scale));
}

// --- kernels for accelerators, which have to be asked for the logsumexp

// output, logsumexp, cum_seq_q, cum_seq_k, max_q, max_k, two of random state, debug mask
using FlashDuals = DualsAnd<Tensor, Tensor, c10::SymInt, c10::SymInt, Tensor, Tensor, Tensor>;

FlashDuals flash(const Dual& query, const Dual& key, const Dual& value, double dropout_p,
                 bool is_causal, bool debug, std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_flash_attention;
  check_dropout(dropout_p);
  return with_tangents(
      {query, key, value, {}}, scoring_from_end(query.primal, key.primal, is_causal, scale),
      Op::call(query.primal, key.primal, value.primal, dropout_p, is_causal, debug, scale));
}

std::tuple<Dual, Dual, Dual> flash_backward(const Dual& grad, const Dual& query, const Dual& key,
                                            const Dual& value, const Dual& output,
                                            const Dual& logsumexp, const Dual& cum_seq_q,
                                            const Dual& cum_seq_k, const c10::SymInt& max_q,
                                            const c10::SymInt& max_k, double dropout_p,
                                            bool is_causal, const Dual& seed, const Dual& offset,
                                            std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_flash_attention_backward;
  return gradients_with_tangents(
      {query, key, value, {}}, grad, output, logsumexp, dropout_p,
      scoring_from_end(query.primal, key.primal, is_causal, scale), [&] {
        return Op::call(grad.primal, query.primal, key.primal, value.primal, output.primal,
                        logsumexp.primal, cum_seq_q.primal, cum_seq_k.primal, max_q, max_k,
                        dropout_p, is_causal, seed.primal, offset.primal, scale);
      });
}

DualsAnd<Tensor, Tensor> efficient(const Dual& query, const Dual& key, const Dual& value,
                                   const Dual& bias, bool, double dropout_p, bool is_causal,
                                   std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_efficient_attention;
  check_dropout(dropout_p);
  return with_tangents({query, key, value, bias},
                       scoring_from_start(query.primal, is_causal, scale),
                       Op::call(query.primal, key.primal, value.primal, optional(bias), true,
                                dropout_p, is_causal, scale));
}

std::tuple<Dual, Dual, Dual, Dual> efficient_backward(const Dual& grad, const Dual& query,
                                                      const Dual& key, const Dual& value,
                                                      const Dual& bias, const Dual& output,
                                                      const Dual& logsumexp, const Dual& seed,
                                                      const Dual& offset, double dropout_p,
                                                      const std::array<bool, 4>& mask,
                                                      bool is_causal, std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_efficient_attention_backward;
  return gradients_with_tangents(
      {query, key, value, bias}, grad, output, logsumexp, dropout_p,
      scoring_from_start(query.primal, is_causal, scale),
      [&] {
        return Op::call(grad.primal, query.primal, key.primal, value.primal, bias.primal,
                        output.primal, logsumexp.primal, seed.primal, offset.primal, dropout_p,
                        mask, is_causal, scale);
      },
      mask[3]);
}

FlashDuals cudnn(const Dual& query, const Dual& key, const Dual& value, const Dual& bias, bool,
                 double dropout_p, bool is_causal, bool debug, std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_cudnn_attention;
  check_dropout(dropout_p);
  return with_tangents({query, key, value, bias},
                       scoring_from_start(query.primal, is_causal, scale),
                       Op::call(query.primal, key.primal, value.primal, optional(bias), true,
                                dropout_p, is_causal, debug, scale));
}

std::tuple<Dual, Dual, Dual> cudnn_backward(
    const Dual& grad, const Dual& query, const Dual& key, const Dual& value, const Dual& output,
    const Dual& logsumexp, const Dual& seed, const Dual& offset, const Dual& bias,
    const Dual& cum_seq_q, const Dual& cum_seq_k, const c10::SymInt& max_q,
    const c10::SymInt& max_k, double dropout_p, bool is_causal, std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_cudnn_attention_backward;
  return gradients_with_tangents(
      {query, key, value, bias}, grad, output, logsumexp, dropout_p,
      scoring_from_start(query.primal, is_causal, scale), [&] {
        return Op::call(grad.primal, query.primal, key.primal, value.primal, output.primal,
                        logsumexp.primal, seed.primal, offset.primal, bias.primal, cum_seq_q.primal,
                        cum_seq_k.primal, max_q, max_k, dropout_p, is_causal, scale);
      });
}

FlashDuals overrideable(const Dual& query, const Dual& key, const Dual& value, const Dual& bias,
                        double dropout_p, bool is_causal, bool debug, std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_fused_attention_overrideable;
  check_dropout(dropout_p);
  return with_tangents({query, key, value, bias},
                       scoring_from_start(query.primal, is_causal, scale),
                       Op::call(query.primal, key.primal, value.primal, optional(bias), dropout_p,
                                is_causal, debug, scale));
}

std::tuple<Dual, Dual, Dual, Dual> overrideable_backward(
    const Dual& grad, const Dual& query, const Dual& key, const Dual& value, const Dual& bias,
    const std::array<bool, 4>& mask, const Dual& output, const Dual& logsumexp,
    const Dual& cum_seq_q, const Dual& cum_seq_k, const c10::SymInt& max_q,
    const c10::SymInt& max_k, double dropout_p, bool is_causal, const Dual& seed,
    const Dual& offset, std::optional<double> scale) {
  using Op = ops::_scaled_dot_product_fused_attention_overrideable_backward;
  return gradients_with_tangents(
      {query, key, value, bias}, grad, output, logsumexp, dropout_p,
      scoring_from_start(query.primal, is_causal, scale),
      [&] {
        return Op::call(grad.primal, query.primal, key.primal, value.primal, bias.primal, mask,
                        output.primal, logsumexp.primal, cum_seq_q.primal, cum_seq_k.primal, max_q,
                        max_k, dropout_p, is_causal, seed.primal, offset.primal, scale);
      },
      mask[3]);
}

}  // namespace

FUNCTX_RULES(gradients_of_attention) {
  recordable<ops::_scaled_dot_product_flash_attention_for_cpu_backward, flash_for_cpu_gradient>();
}

FUNCTX_RULES(jvp_attention) {
  dual_rule<ops::_scaled_dot_product_flash_attention_for_cpu, flash_for_cpu>();
  dual_rule<ops::_scaled_dot_product_flash_attention_for_cpu_backward, flash_for_cpu_backward>();
  dual_rule<ops::_scaled_dot_product_flash_attention, flash>();
  dual_rule<ops::_scaled_dot_product_flash_attention_backward, flash_backward>();
  dual_rule<ops::_scaled_dot_product_efficient_attention, efficient>();
  dual_rule<ops::_scaled_dot_product_efficient_attention_backward, efficient_backward>();
  dual_rule<ops::_scaled_dot_product_cudnn_attention, cudnn>();
  dual_rule<ops::_scaled_dot_product_cudnn_attention_backward, cudnn_backward>();
  dual_rule<ops::_scaled_dot_product_fused_attention_overrideable, overrideable>();
  dual_rule<ops::_scaled_dot_product_fused_attention_overrideable_backward,
            overrideable_backward>();
}

}  // namespace functx
