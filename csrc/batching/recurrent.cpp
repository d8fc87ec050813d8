// Recurrent networks. They decompose, but write into what they make of the hidden state; and
// accelerators have fused cells of LSTM and GRU: rows of gates, so the batch joins N. Biases that
// differ between examples are added to the gates first.
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>

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

// --- one direction of one layer of an LSTM on the CPU, for all steps: input [T, N, I], weights
// [4 * H, I] and [4 * H, H], two biases [4 * H], states [N, H]

using Layer = ops::mkldnn_rnn_layer;

// With weights that are the same for every example, the batch joins N.
std::tuple<Batched, Batched, Batched, Batched> lstm_layer(
    const Batched& input, const Batched& w_input, const Batched& w_hidden, const Batched& b_input,
    const Batched& b_hidden, const Batched& hx, const Batched& cx, bool reverse,
    at::IntArrayRef batch_sizes, int64_t mode, int64_t hidden_size, int64_t num_layers,
    bool has_biases, bool bidirectional, bool batch_first, bool train) {
  const int64_t size = *common_batch_size({&input, &hx, &cx});
  auto [output, hy, cy, workspace] = Layer::call(
      fold_batch_into(ensure_batched(input, size), 1).contiguous(), w_input.value, w_hidden.value,
      b_input.value, b_hidden.value, fold_items(hx, size), fold_items(cx, size), reverse,
      batch_sizes, mode, hidden_size, num_layers, has_biases, bidirectional, batch_first, train);
  return {{unfold_batch_from(output, 1, size), true},
          {unfold_items(hy, size), true},
          {unfold_items(cy, size), true},
          {workspace, false}};
}

// Step by step, in operators that can be batched and differentiated.
std::tuple<Tensor, Tensor, Tensor, Tensor> lstm_steps(const Tensor& input, const Tensor& w_input,
                                                      const Tensor& w_hidden, const Tensor& b_input,
                                                      const Tensor& b_hidden, Tensor h, Tensor c,
                                                      bool reverse, bool has_biases) {
  Tensor gates_of_input = at::matmul(input, w_input.t());
  if (has_biases) {
    gates_of_input = gates_of_input.add(b_input.add(b_hidden));
  }
  const std::vector<Tensor> steps = gates_of_input.unbind(0);
  const Tensor recurrent = w_hidden.t();
  std::vector<Tensor> outputs(steps.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    const size_t step = reverse ? steps.size() - 1 - i : i;
    const std::vector<Tensor> gates = steps[step].add(at::matmul(h, recurrent)).chunk(4, -1);
    c = gates[1].sigmoid().mul(c).add(gates[0].sigmoid().mul(gates[2].tanh()));
    h = gates[3].sigmoid().mul(c.tanh());
    outputs[step] = h;
  }
  return {at::stack(outputs), h, c, input.new_empty({0}, at::TensorOptions().dtype(at::kByte))};
}

// PyTorch's operator has the gradient of all weights in one, for one minibatch, which may not be
// empty, and no tangents: it serves where none of that is asked for.
std::tuple<Tensor, Tensor, Tensor, Tensor> lstm_layer_kernel(
    c10::DispatchKeySet keys, const Tensor& input, const Tensor& w_input, const Tensor& w_hidden,
    const Tensor& b_input, const Tensor& b_hidden, const Tensor& hx, const Tensor& cx, bool reverse,
    at::IntArrayRef batch_sizes, int64_t mode, int64_t hidden_size, int64_t num_layers,
    bool has_biases, bool bidirectional, bool batch_first, bool train) {
  const Operands operands(input, w_input, w_hidden, b_input, b_hidden, hx, cx);
  const Wrapper* top = operands.top();
  if (top != nullptr && !yields_to_torch_func(operands, keys) &&
      autocast_keys(traits_of<Layer>().handle, keys).empty() &&
      !need_stand_ins<const Tensor&, const Tensor&, const Tensor&>(operands, input, hx, cx)) {
    const auto is_batched = [&](const auto&... each) {
      return detail::any_batched(detail::unpack(top->level(), each)...);
    };
    const bool is_minibatch = top->level()->transform == Transform::Vmap && !operands.taped() &&
                              !is_batched(w_input, w_hidden, b_input, b_hidden) &&
                              is_batched(input, hx, cx) && top->level()->batch_size > 0;
    if (!is_minibatch) {
      constexpr int64_t kLstm = 2;
      TORCH_CHECK(mode == kLstm, "mkldnn_rnn_layer: expected the mode of an LSTM, got ", mode);
      return lstm_steps(input, w_input, w_hidden, b_input, b_hidden, hx, cx, reverse, has_biases);
    }
  }
  return Kernel<Layer>::run(keys, input, w_input, w_hidden, b_input, b_hidden, hx, cx, reverse,
                            batch_sizes, mode, hidden_size, num_layers, has_biases, bidirectional,
                            batch_first, train);
}

}  // namespace

FUNCTX_RULES(recurrent_layers) {
  Rules<Layer>::batching = &detail::BatchingAdapter<Layer, lstm_layer>::call;
  const c10::OperatorName name(Layer::name, Layer::overload_name);
  if (claim(name, Coverage::Rule)) {
    register_kernel(name, kFrontKey,
                    c10::KernelFunction::makeFromUnboxedFunction(TORCH_FN(lstm_layer_kernel)));
  }
}

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
