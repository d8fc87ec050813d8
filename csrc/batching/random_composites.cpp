// Random operators that PyTorch composes of others, some of them in a way that hides from a level
// what is drawn for: by filling a new tensor that no longer knows of the batch. Under vmap they are
// composed of operators that return what they draw.
#include <cmath>

#include "batching/by_loop.h"
#include "batching/random.h"
#include "batching/rule.h"

namespace functx {
namespace {

const LevelPtr* innermost_vmap() {
  const auto levels = active_levels();
  const auto found = std::find_if(levels.rbegin(), levels.rend(), [](const LevelPtr& level) {
    return level->transform == Transform::Vmap;
  });
  return found == levels.rend() ? nullptr : &*found;
}

template <class Op, auto decomposition, class Signature = typename Op::schema>
struct RandomComposite;

template <class Op, auto decomposition, class Result, class... Args>
struct RandomComposite<Op, decomposition, Result(Args...)> {
  static Result run(c10::DispatchKeySet keys, Args... args) {
    const LevelPtr* level = innermost_vmap();
    if (level == nullptr || !draws_numbers(args...)) {
      return Op::redispatch(keys & kBelowModeKeys, std::forward<Args>(args)...);
    }
    check_may_draw(traits_of<Op>().handle, **level);
    return decomposition(std::forward<Args>(args)...);
  }

 private:
  // The family of dropout: input, share, train.
  static bool draws_numbers(const Tensor&, double p, bool train) {
    return train && p != 0 && p != 1;
  }
  // rrelu, and with the tensor that receives the noise.
  static bool draws_numbers(const Tensor&, const at::Scalar&, const at::Scalar&, bool training,
                            const std::optional<at::Generator>&) {
    return training;
  }
  static bool draws_numbers(const Tensor&, const Tensor&, const at::Scalar&, const at::Scalar&,
                            bool training, const std::optional<at::Generator>&) {
    return training;
  }
  // Attention.
  template <class... Rest>
  static bool draws_numbers(const Tensor&, const Tensor&, const Tensor&,
                            const std::optional<Tensor>&, double dropout_p, const Rest&...) {
    return dropout_p != 0;
  }
};

template <class Op, auto decomposition>
void random_composite() {
  register_kernel(c10::OperatorName(Op::name, Op::overload_name), kModeKey,
                  c10::KernelFunction::makeFromUnboxedFunction(
                      TORCH_FN((RandomComposite<Op, decomposition>::run))));
}

// Ones that stay, zeros that are dropped; of the size of `input`, or one for each of its channels.
Tensor keep(const Tensor& input, double p, bool per_channel) {
  c10::SymDimVector size(input.sym_sizes().begin(), input.sym_sizes().end());
  if (per_channel) {
    TORCH_CHECK(input.dim() >= 2,
                "functx.vmap: dropout of whole channels takes an input with at "
                "least two dimensions in each example, got ",
                input.dim());
    std::fill(size.begin() + 2, size.end(), c10::SymInt(1));
  }
  const Tensor shaped = ops::empty_memory_format::call(size, input.scalar_type(), input.layout(),
                                                       input.device(), {}, {});
  return ops::bernoulli_p::call(shaped, 1 - p, {});
}

// Fused where a kernel does all at once, as PyTorch chooses: on the CPU it would multiply by a mask
// of another type, which is slower.
Tensor dropout(const Tensor& input, double p, bool) {
  if (!input.is_cpu()) {
    return std::get<0>(ops::native_dropout::call(input, p, true));
  }
  return input.mul(ops::bernoulli_p::call(input.detach(), 1 - p, {}).div(1 - p));
}

Tensor& dropout_(Tensor& self, double p, bool train) {
  const Tensor ones = ops::ones_like::call(self, {}, {}, {}, {}, {});
  return self.mul_(functx::dropout(ones, p, train));
}

Tensor feature_dropout(const Tensor& input, double p, bool) {
  return input.mul(keep(input, p, true).div(1 - p));
}

Tensor& feature_dropout_(Tensor& self, double p, bool) {
  return self.mul_(keep(self, p, true).div(1 - p));
}

// Dropout to the value at which selu saturates, then the affine map that restores mean and variance
// (Klambauer et al., Self-Normalizing Neural Networks): input * factor + term.
struct Affine {
  Tensor factor;
  Tensor term;
};

Affine alpha_dropout_map(const Tensor& input, double p, bool per_channel) {
  constexpr double saturation = -1.7580993408473766;
  const Tensor kept = keep(input, p, per_channel);
  const double scale = 1 / std::sqrt((1 - p) * (1 + p * saturation * saturation));
  return {kept.mul(scale), ops::rsub_Scalar::call(kept, 1 - p, 1).mul(scale * saturation)};
}

template <bool per_channel>
Tensor alpha_dropout(const Tensor& input, double p, bool) {
  const Affine map = alpha_dropout_map(input, p, per_channel);
  return input.mul(map.factor).add(map.term);
}

template <bool per_channel>
Tensor& alpha_dropout_(Tensor& self, double p, bool) {
  const Affine map = alpha_dropout_map(self, p, per_channel);
  return self.mul_(map.factor).add_(map.term);
}

// What rrelu multiplies by: one random slope after the other for the elements that are not
// positive, which a CPU draws in double precision.
Tensor slopes(const Tensor& self, const at::Scalar& lower, const at::Scalar& upper,
              std::optional<at::Generator> generator) {
  const Tensor is_sloped = self.le(0);
  const Tensor shaped = ops::empty_memory_format::call({self.sym_numel()}, at::kDouble,
                                                       self.layout(), self.device(), {}, {});
  const Tensor drawn =
      ops::uniform::call(shaped, lower.toDouble(), upper.toDouble(), std::move(generator));
  const Tensor order = is_sloped.flatten().cumsum(0).sub(1).clamp_min(0);
  return drawn.gather(0, order)
      .view_symint(self.sym_sizes())
      .to(self.scalar_type())
      .masked_fill(is_sloped.logical_not(), 1);
}

Tensor rrelu(const Tensor& self, const at::Scalar& lower, const at::Scalar& upper, bool,
             std::optional<at::Generator> generator) {
  return self.mul(slopes(self.detach(), lower, upper, std::move(generator)));
}

Tensor& rrelu_(Tensor& self, const at::Scalar& lower, const at::Scalar& upper, bool,
               std::optional<at::Generator> generator) {
  return self.mul_(slopes(self.detach(), lower, upper, std::move(generator)));
}

Tensor rrelu_with_noise(const Tensor& self, Tensor& noise, const at::Scalar& lower,
                        const at::Scalar& upper, bool, std::optional<at::Generator> generator) {
  noise.copy_(slopes(self.detach(), lower, upper, std::move(generator)));
  return self.mul(noise.clone());
}

Tensor& rrelu_with_noise_(Tensor& self, Tensor& noise, const at::Scalar& lower,
                          const at::Scalar& upper, bool, std::optional<at::Generator> generator) {
  noise.copy_(slopes(self.detach(), lower, upper, std::move(generator)));
  return self.mul_(noise.clone());
}

std::tuple<Tensor, Tensor> rrelu_with_noise_functional(const Tensor& self, const Tensor&,
                                                       const at::Scalar& lower,
                                                       const at::Scalar& upper, bool,
                                                       std::optional<at::Generator> generator) {
  const Tensor noise = slopes(self.detach(), lower, upper, std::move(generator));
  return {self.mul(noise), noise};
}

// ---- in evaluation mode -------------------------------------------------------------------------

at::Scalar middle(const at::Scalar& lower, const at::Scalar& upper) {
  return (lower.toDouble() + upper.toDouble()) / 2;
}

Tensor leaky(const LevelPtr& level, const Tensor& self, Tensor&, const at::Scalar& lower,
             const at::Scalar& upper, bool, std::optional<at::Generator>) {
  return ops::leaky_relu::call(detail::without_tape(level, self), middle(lower, upper));
}

Tensor& leaky_(const LevelPtr& level, Tensor& self, Tensor&, const at::Scalar& lower,
               const at::Scalar& upper, bool, std::optional<at::Generator>) {
  Tensor value = unwrap_batched(level, self).value;
  ops::leaky_relu_::call(value, middle(lower, upper));
  return self;
}

std::tuple<Tensor, Tensor> leaky_functional(const LevelPtr& level, const Tensor& self,
                                            const Tensor& noise, const at::Scalar& lower,
                                            const at::Scalar& upper, bool,
                                            std::optional<at::Generator>) {
  return {ops::leaky_relu::call(detail::without_tape(level, self), middle(lower, upper)),
          detail::without_tape(level, noise).clone()};
}

// A mask as a term that is added to the scores.
std::optional<Tensor> additive(const std::optional<Tensor>& mask, at::ScalarType dtype) {
  if (!mask.has_value() || mask->scalar_type() != at::kBool) {
    return mask;
  }
  const Tensor zeros = ops::zeros_like::call(*mask, dtype, {}, {}, {}, {});
  return zeros.masked_fill(mask->logical_not(), -std::numeric_limits<double>::infinity());
}

// The fused kernels drop with generators of their own; the plain composition calls dropout.
Tensor attention(const Tensor& query, const Tensor& key, const Tensor& value,
                 const std::optional<Tensor>& mask, double dropout_p, bool is_causal,
                 std::optional<double> scale, bool enable_gqa) {
  return std::get<0>(ops::_scaled_dot_product_attention_math::call(
      query, key, value, additive(mask, query.scalar_type()), dropout_p, is_causal, {}, scale,
      enable_gqa));
}

FUNCTX_RULES(rrelu_in_evaluation) {
  level_rule<ops::rrelu_with_noise>(leaky);
  level_rule<ops::rrelu_with_noise_>(leaky_);
  level_rule<ops::rrelu_with_noise_functional>(leaky_functional);
}

FUNCTX_RULES(random_composites) {
  random_composite<ops::dropout, dropout>();
  random_composite<ops::dropout_, dropout_>();
  random_composite<ops::feature_dropout, feature_dropout>();
  random_composite<ops::feature_dropout_, feature_dropout_>();
  random_composite<ops::alpha_dropout, alpha_dropout<false>>();
  random_composite<ops::alpha_dropout_, alpha_dropout_<false>>();
  random_composite<ops::feature_alpha_dropout, alpha_dropout<true>>();
  random_composite<ops::feature_alpha_dropout_, alpha_dropout_<true>>();
  random_composite<ops::rrelu, rrelu>();
  random_composite<ops::rrelu_, rrelu_>();
  random_composite<ops::rrelu_with_noise, rrelu_with_noise>();
  random_composite<ops::rrelu_with_noise_, rrelu_with_noise_>();
  random_composite<ops::rrelu_with_noise_functional, rrelu_with_noise_functional>();
  random_composite<ops::scaled_dot_product_attention, attention>();
}

}  // namespace
}  // namespace functx
