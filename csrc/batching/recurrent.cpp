// Recurrent networks. They decompose, but write into what they make of the hidden state; and
// accelerators have fused cells of LSTM and GRU: rows of gates, so the batch joins N. Biases that
// differ between examples are added to the gates first.
#include "batching/composite.h"
#include "batching/dims.h"
#include "batching/fold.h"
#include "batching/rule.h"

namespace functx {
namespace {

void check_rows(const char* name, const Batched& gates) {
  TORCH_CHECK(gates.logical_dim() == 2, name, ": expected gates of shape [N, gates], but got ",
              gates.logical_dim(), " dimensions");
}

// Gates [B * N, gates] of all examples with their own bias, or [N, gates] where none is batched.
Tensor gates_with_bias(const Batched& gates, const Batched& bias, std::optional<int64_t> size) {
  if (!size) {
    return bias.defined() ? gates.value.add(bias.value) : gates.value;
  }
  if (!bias.defined()) {
    return fold_items(gates, *size);
  }
  const Tensor shaped = bias.is_batched ? bias.value.unsqueeze(1) : bias.value;
  return ensure_batched(gates, *size).add(shaped).flatten(0, 1);
}

Tensor fold_if(const Batched& x, std::optional<int64_t> size) {
  return size && x.defined() ? fold_items(x, *size) : x.value;
}

Batched unfold_if(const Tensor& x, std::optional<int64_t> size) {
  return size && x.defined() ? Batched{unfold_items(x, *size), true} : Batched{x, false};
}

Batched sum_rows(const Batched& x) { return {x.value.sum(-2), x.is_batched}; }

std::tuple<Batched, Batched, Batched> lstm_cell(const Batched& input_gates,
                                                const Batched& hidden_gates, const Batched& cx,
                                                const Batched& input_bias,
                                                const Batched& hidden_bias) {
  check_rows("_thnn_fused_lstm_cell", input_gates);
  const auto size =
      common_batch_size({&input_gates, &hidden_gates, &cx, &input_bias, &hidden_bias});
  auto [hy, cy, workspace] =
      ops::_thnn_fused_lstm_cell::call(gates_with_bias(input_gates, input_bias, size),
                                       gates_with_bias(hidden_gates, hidden_bias, size),
                                       fold_if(cx, size), std::nullopt, std::nullopt);
  return {unfold_if(hy, size), unfold_if(cy, size), unfold_if(workspace, size)};
}

std::tuple<Batched, Batched, Batched> lstm_cell_backward(const Batched& grad_hy,
                                                         const Batched& grad_cy, const Batched& cx,
                                                         const Batched& cy,
                                                         const Batched& workspace, bool has_bias) {
  const auto size = common_batch_size({&grad_hy, &grad_cy, &cx, &cy, &workspace});
  const auto optional_fold = [&](const Batched& x) {
    return x.defined() ? std::make_optional(fold_if(x, size)) : std::nullopt;
  };
  auto [grad_gates, grad_cx, no_bias] = ops::_thnn_fused_lstm_cell_backward_impl::call(
      optional_fold(grad_hy), optional_fold(grad_cy), fold_if(cx, size), fold_if(cy, size),
      fold_if(workspace, size), false);
  const Batched gates = unfold_if(grad_gates, size);
  return {gates, unfold_if(grad_cx, size),
          has_bias && gates.defined() ? sum_rows(gates) : Batched{}};
}

std::tuple<Batched, Batched> gru_cell(const Batched& input_gates, const Batched& hidden_gates,
                                      const Batched& hx, const Batched& input_bias,
                                      const Batched& hidden_bias) {
  check_rows("_thnn_fused_gru_cell", input_gates);
  const auto size =
      common_batch_size({&input_gates, &hidden_gates, &hx, &input_bias, &hidden_bias});
  auto [hy, workspace] =
      ops::_thnn_fused_gru_cell::call(gates_with_bias(input_gates, input_bias, size),
                                      gates_with_bias(hidden_gates, hidden_bias, size),
                                      fold_if(hx, size), std::nullopt, std::nullopt);
  return {unfold_if(hy, size), unfold_if(workspace, size)};
}

std::tuple<Batched, Batched, Batched, Batched, Batched> gru_cell_backward(const Batched& grad_hy,
                                                                          const Batched& workspace,
                                                                          bool has_bias) {
  const auto size = common_batch_size({&grad_hy, &workspace});
  auto results = ops::_thnn_fused_gru_cell_backward::call(fold_if(grad_hy, size),
                                                          fold_if(workspace, size), false);
  const Batched input_gates = unfold_if(std::get<0>(results), size);
  const Batched hidden_gates = unfold_if(std::get<1>(results), size);
  return {input_gates, hidden_gates, unfold_if(std::get<2>(results), size),
          has_bias ? sum_rows(input_gates) : Batched{},
          has_bias ? sum_rows(hidden_gates) : Batched{}};
}

}  // namespace

FUNCTX_RULES(recurrent) {
  batching_rule<ops::_thnn_fused_lstm_cell, lstm_cell>();
  batching_rule<ops::_thnn_fused_lstm_cell_backward_impl, lstm_cell_backward>();
  batching_rule<ops::_thnn_fused_gru_cell, gru_cell>();
  batching_rule<ops::_thnn_fused_gru_cell_backward, gru_cell_backward>();
}

// The hidden state is zeros, the same for every example, unless the caller has one.
FUNCTX_RULES(hidden_states) {
  spread_argument<ops::gru_input, 1>();
  spread_argument<ops::lstm_input, 1>();
  spread_argument<ops::rnn_tanh_input, 1>();
  spread_argument<ops::rnn_relu_input, 1>();
  spread_argument<ops::gru_data, 2>();
  spread_argument<ops::lstm_data, 2>();
  spread_argument<ops::rnn_tanh_data, 2>();
  spread_argument<ops::rnn_relu_data, 2>();
  spread_argument<ops::gru_cell, 1>();
  spread_argument<ops::lstm_cell, 1>();
  spread_argument<ops::rnn_tanh_cell, 1>();
  spread_argument<ops::rnn_relu_cell, 1>();
}

}  // namespace functx
