// The backward operators of layer and batch normalization as a tape records them. PyTorch's
// derivatives of them take the statistics that the forward operator saved for constants, so that
// the derivatives of these are wrong.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/memory_format.h"
#include "forward_ad/conform.h"
#include "forward_ad/normalization.h"
#include "forward_ad/rule.h"
#include "reverse_ad/differentiated.h"
#include "reverse_ad/recordable.h"

namespace functx {
namespace normalization {
namespace {

Three fused(const LayerNorm& norm, const Tensor& grad, const Tensor& weight, const Tensor& bias,
            Mask mask) {
  // The kernel for CPUs tells by the weight that statistics are in single precision.
  const bool needs_weight = !weight.defined() && norm.mean.is_cpu() &&
                            norm.mean.scalar_type() != norm.input.scalar_type();
  const Tensor scale = needs_weight ? at::ones_symint(norm.shape(), norm.mean.options()) : weight;
  return ops::native_layer_norm_backward::call(grad, norm.input, norm.shape(), norm.mean, norm.rstd,
                                               optional(scale), optional(bias), mask);
}

Three fused(const BatchNorm& norm, const Tensor& grad, const Tensor& weight, const Tensor&,
            Mask mask) {
  return ops::native_batch_norm_backward::call(
      with_strides_of_format(grad), with_strides_of_format(norm.input), optional(weight),
      optional(norm.running_mean), optional(norm.running_var), optional(norm.mean),
      optional(norm.rstd), norm.train, norm.eps, mask);
}

// What the node keeps of a norm, beside its tensors.
c10::IValue settings(const LayerNorm& norm) { return norm.kept; }
c10::IValue settings(const BatchNorm& norm) { return norm.eps; }

// In the backward of the node, where a derivative may be taken of the statistics as well.
LayerNorm restored(const LayerNorm*, const Tensor& input, const Tensor& mean, const Tensor& rstd,
                   const c10::IValue& kept) {
  return LayerNorm::of(input, kept.toInt(), mean, rstd);
}
BatchNorm restored(const BatchNorm*, const Tensor& input, const Tensor& mean, const Tensor& rstd,
                   const c10::IValue& eps) {
  return BatchNorm::of(input, {}, {}, mean, rstd, /*train=*/true, eps.toDouble());
}

Tensor like(Tensor gradient, const Tensor& variable) {
  return gradient.defined() ? gradient.to(variable.scalar_type()) : gradient;
}

template <class Norm>
struct Recorded : torch::autograd::Function<Recorded<Norm>> {
  using List = torch::autograd::variable_list;
  using Context = torch::autograd::AutogradContext;

  // `mask` tells what is asked for, and then what there is.
  static List forward(Context* context, const Tensor& grad, const Tensor& input,
                      const std::optional<Tensor>& weight, const std::optional<Tensor>& bias,
                      const Norm& norm, Mask& mask) {
    // The tape records this as a whole, but those in strata below record what it is made of.
    const c10::AutoGradMode for_strata_below(true);
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto [by_input, by_weight, by_bias] =
        fused(norm, grad, weight.value_or(Tensor()), bias.value_or(Tensor()), mask);
    List results{by_input, by_weight, by_bias}, absent;
    for (size_t i = 0; i < results.size(); ++i) {
      mask[i] = results[i].defined();
      if (!mask[i]) {
        results[i] = at::empty({0}, grad.options());
        absent.push_back(results[i]);
      }
    }
    context->mark_non_differentiable(absent);
    context->set_materialize_grads(false);
    context->save_for_backward({grad, input, weight.value_or(Tensor()), norm.mean, norm.rstd});
    context->saved_data["settings"] = settings(norm);
    return results;
  }

  // With J symmetric and y normalized: by_input = J (grad weight), by_weight = sum of grad y.
  static List backward(Context* context, const List& cotangents) {
    const List saved = context->get_saved_variables();
    const Tensor &grad = saved[0], &input = saved[1], &weight = saved[2];
    const Norm norm = restored(static_cast<const Norm*>(nullptr), input, saved[3], saved[4],
                               context->saved_data["settings"]);
    const Tensor &u = cotangents[0], &by_weight = cotangents[1], &by_bias = cotangents[2];
    // Undefined arguments of forward are no variables.
    const bool needs_grad = context->needs_input_grad(0),
               needs_input = context->needs_input_grad(1);
    const bool needs_weight = weight.defined() && context->needs_input_grad(2);
    const Tensor spread_weight = norm.spread(weight);
    const auto times_weight = [&](const Tensor& t) {
      return spread_weight.defined() ? t.mul(spread_weight) : t;
    };
    Tensor grad_term, input_term, weight_term;
    if (u.defined()) {
      const Tensor change = norm.normalized_tangent(u);
      if (needs_grad) {
        grad_term = times_weight(change);
      }
      if (needs_weight) {
        weight_term = sum_over(grad.mul(change), norm.other_dims());
      }
      if (needs_input) {
        const Tensor scaled = times_weight(grad).to(grad.scalar_type());
        input_term =
            curvature(scaled, u, norm.normalized(), change, norm.normalized_tangent(scaled),
                      norm.scale(), norm.normalized_dims());
      }
    }
    if (by_weight.defined()) {
      const Tensor moved = norm.spread(by_weight);
      if (needs_grad) {
        grad_term = sum_of(std::move(grad_term), norm.normalized().mul(moved));
      }
      if (needs_input) {
        input_term = sum_of(std::move(input_term),
                            norm.normalized_tangent(grad.mul(moved).to(grad.scalar_type())));
      }
    }
    if (by_bias.defined() && needs_grad) {
      const Tensor moved = norm.spread(by_bias).expand_symint(grad.sym_sizes());
      grad_term = sum_of(std::move(grad_term), moved);
    }
    return {like(std::move(grad_term), grad),
            like(std::move(input_term), input),
            like(std::move(weight_term), weight),
            Tensor(),
            Tensor(),
            Tensor()};
  }
};

// Nobody's rule for native forward mode is in our node.
bool has_native_tangent(const Tensor& tensor) {
  return tensor.defined() && tensor._fw_grad(/*level=*/0).defined();
}

bool is_on_tape(const Tensor& tensor) { return tensor.defined() && tensor.requires_grad(); }

template <class... Tensors>
bool can_be_recorded(const Tensors&... tensors) {
  return is_recorded_on_plain_tensors((is_on_tape(tensors) || ...)) &&
         !(has_native_tangent(tensors) || ...);
}

template <class Norm>
Three record(const Norm& norm, const Tensor& grad, const Tensor& weight, const Tensor& bias,
             Mask mask) {
  if (!can_be_recorded(grad, norm.input, weight)) {
    return fused(norm, grad, weight, bias, mask);
  }
  auto results =
      Recorded<Norm>::apply(grad, norm.input, optional(weight), optional(bias), norm, mask);
  const auto result = [&](size_t i) { return mask[i] ? results[i] : Tensor(); };
  return {result(0), result(1), result(2)};
}

// ---- under grad, where autograd would record PyTorch's operators ----

std::optional<Three> layer_norm_gradient(const Tensor& grad, const Tensor& input,
                                         c10::SymIntArrayRef shape, const Tensor& mean,
                                         const Tensor& rstd, const std::optional<Tensor>& weight,
                                         const std::optional<Tensor>& bias, Mask mask) {
  if (!can_be_recorded(grad, input, weight.value_or(Tensor()))) {
    return std::nullopt;
  }
  const auto kept = static_cast<int64_t>(shape.size());
  return record(LayerNorm{kept, input, mean, rstd, {}}, grad, weight.value_or(Tensor()),
                bias.value_or(Tensor()), mask);
}

std::optional<Three> batch_norm_gradient(const Tensor& grad, const Tensor& input,
                                         const std::optional<Tensor>& weight,
                                         const std::optional<Tensor>& running_mean,
                                         const std::optional<Tensor>& running_var,
                                         const std::optional<Tensor>& mean,
                                         const std::optional<Tensor>& rstd, bool train, double eps,
                                         Mask mask) {
  if (!train || !can_be_recorded(grad, input, weight.value_or(Tensor()))) {
    return std::nullopt;
  }
  const BatchNorm norm{input,
                       running_mean.value_or(Tensor()),
                       running_var.value_or(Tensor()),
                       mean.value_or(Tensor()),
                       rstd.value_or(Tensor()),
                       train,
                       eps,
                       {}};
  return record(norm, grad, weight.value_or(Tensor()), {}, mask);
}

// What is reserved is for a kernel that is not called here.
std::optional<Three> batch_norm_gradient_with_reserve(const Tensor& grad, const Tensor& input,
                                                      const Tensor& weight,
                                                      const std::optional<Tensor>& running_mean,
                                                      const std::optional<Tensor>& running_var,
                                                      const std::optional<Tensor>& mean,
                                                      const std::optional<Tensor>& rstd, bool train,
                                                      double eps, Mask mask, const Tensor&) {
  return batch_norm_gradient(grad, input, weight, running_mean, running_var, mean, rstd, train, eps,
                             mask);
}

}  // namespace

Three layer_norm_backward(const LayerNorm& norm, const Tensor& grad, const Tensor& weight,
                          const Tensor& bias, Mask mask) {
  return record(norm, grad, weight, bias, mask);
}

Three batch_norm_backward(const BatchNorm& norm, const Tensor& grad, const Tensor& weight,
                          Mask mask) {
  // Statistics that are given are constants.
  return norm.train ? record(norm, grad, weight, {}, mask) : fused(norm, grad, weight, {}, mask);
}

FUNCTX_RULES(gradients_of_normalizations) {
  recordable<ops::native_layer_norm_backward, layer_norm_gradient>();
  recordable<ops::native_batch_norm_backward, batch_norm_gradient>();
  recordable<ops::batch_norm_backward, batch_norm_gradient_with_reserve>();
}

}  // namespace normalization
}  // namespace functx
