// Attention and transformer layers that PyTorch runs as one operator for inference, which has
// neither derivatives nor a dimension for a batch: written in operators that have both.
#include <cmath>
#include <limits>

#include "batching/rule.h"
#include "forward_ad/rule.h"

namespace functx {
namespace {

constexpr double kHidden = -std::numeric_limits<double>::infinity();

// A mask as these operators take it (true: hidden; [queries, keys], or [items, keys] if of type 1,
// or with all four dimensions) as what is added to the scores.
std::optional<Tensor> additive(const std::optional<Tensor>& mask, std::optional<int64_t> mask_type,
                               const Tensor& like) {
  constexpr int64_t kOfKeys = 1;
  if (!mask.has_value() || !mask->defined()) {
    return std::nullopt;
  }
  const Tensor hidden = mask->to(at::kBool);
  const Tensor zeros = ops::zeros_like::call(hidden, like.scalar_type(), {}, {}, {}, {});
  const Tensor added = zeros.masked_fill(hidden, kHidden);
  return mask_type == kOfKeys ? added.unsqueeze(1).unsqueeze(1) : added;
}

// A query that sees no key attends to nothing, as in PyTorch's fused kernels.
Tensor weights_of(const Tensor& query, const Tensor& key, const std::optional<Tensor>& mask) {
  const double scale = 1 / std::sqrt(static_cast<double>(query.size(-1)));
  const Tensor scores = query.mul(scale).matmul(key.transpose(-2, -1));
  if (!mask.has_value()) {
    return scores.softmax(-1);
  }
  const Tensor masked = scores.add(*mask);
  return masked.softmax(-1).masked_fill(masked.eq(kHidden), 0);
}

std::tuple<Tensor, Tensor> multi_head_attention(const Tensor& query, const Tensor& key,
                                                const Tensor& value, int64_t width, int64_t heads,
                                                const Tensor& qkv_weight, const Tensor& qkv_bias,
                                                const Tensor& proj_weight, const Tensor& proj_bias,
                                                const std::optional<Tensor>& mask,
                                                bool need_weights, bool average_weights,
                                                std::optional<int64_t> mask_type) {
  TORCH_CHECK(heads > 0 && width % heads == 0, "functx: attention of width ", width,
              " cannot be divided among num_heads=", heads, " heads");
  const auto of_heads = [&](const Tensor& input, int64_t place) {
    const Tensor projected =
        ops::linear::call(input, qkv_weight.narrow(0, place * width, width),
                          std::make_optional(qkv_bias.narrow(0, place * width, width)));
    return projected.unflatten(-1, {heads, width / heads}).transpose(1, 2);
  };
  const Tensor q = of_heads(query, 0), k = of_heads(key, 1), v = of_heads(value, 2);
  const auto added = additive(mask, mask_type, q);
  Tensor mixed, weights;
  if (need_weights) {
    weights = weights_of(q, k, added);
    mixed = weights.matmul(v);
    weights = average_weights ? weights.mean(1) : weights;
  } else {
    mixed = ops::scaled_dot_product_attention::call(q, k, v, added, 0, false, std::nullopt, false);
  }
  const Tensor joined = mixed.transpose(1, 2).flatten(2, 3);
  return {ops::linear::call(joined, proj_weight, std::make_optional(proj_bias)), weights};
}

Tensor encoder_layer(const Tensor& src, int64_t width, int64_t heads, const Tensor& qkv_weight,
                     const Tensor& qkv_bias, const Tensor& proj_weight, const Tensor& proj_bias,
                     bool use_gelu, bool norm_first, double eps, const Tensor& norm_weight_1,
                     const Tensor& norm_bias_1, const Tensor& norm_weight_2,
                     const Tensor& norm_bias_2, const Tensor& ffn_weight_1,
                     const Tensor& ffn_bias_1, const Tensor& ffn_weight_2, const Tensor& ffn_bias_2,
                     const std::optional<Tensor>& mask, std::optional<int64_t> mask_type) {
  const auto normalized = [&](const Tensor& x, const Tensor& weight, const Tensor& bias) {
    return ops::layer_norm::call(x, c10::fromIntArrayRefSlow({width}), weight, bias, eps, true);
  };
  const auto attended = [&](const Tensor& x) {
    return std::get<0>(multi_head_attention(x, x, x, width, heads, qkv_weight, qkv_bias,
                                            proj_weight, proj_bias, mask, false, false, mask_type));
  };
  const auto fed_forward = [&](const Tensor& x) {
    const Tensor hidden = ops::linear::call(x, ffn_weight_1, ffn_bias_1);
    return ops::linear::call(use_gelu ? ops::gelu::call(hidden, "none") : hidden.relu(),
                             ffn_weight_2, ffn_bias_2);
  };
  if (norm_first) {
    const Tensor x = src.add(attended(normalized(src, norm_weight_1, norm_bias_1)));
    return x.add(fed_forward(normalized(x, norm_weight_2, norm_bias_2)));
  }
  const Tensor x = normalized(src.add(attended(src)), norm_weight_1, norm_bias_1);
  return normalized(x.add(fed_forward(x)), norm_weight_2, norm_bias_2);
}

template <class Op, auto function, class Signature = typename Op::schema>
struct Written;

template <class Op, auto function, class Result, class... Args>
struct Written<Op, function, Result(Args...)> {
  static Result call(const LevelPtr&, Args... args) { return function(args...); }
};

// Under vmap and under jvp.
template <class Op, auto function>
void written_as() {
  Rules<Op>::batching = Rules<Op>::dual = &Written<Op, function>::call;
  install_kernel<Op>();
}

}  // namespace

FUNCTX_RULES(transformer_layers) {
  written_as<ops::_native_multi_head_attention, multi_head_attention>();
  written_as<ops::_transformer_encoder_layer_fwd, encoder_layer>();
}

}  // namespace functx
