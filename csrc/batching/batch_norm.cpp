// Batch normalisation: statistics of each channel over one example's minibatch. The batch of vmap
// joins the channels, so every example keeps statistics of its own.
#include "batching/dims.h"
#include "batching/empty_batch.h"
#include "batching/fold.h"
#include "batching/rule.h"
#include "core/memory_format.h"

namespace functx {
namespace {

using Triple = std::tuple<Batched, Batched, Batched>;

// What the operators have in common, whatever backend they are for.
struct Statistics {
  const Batched& mean;
  const Batched& var;
  bool training;
  double momentum, eps;

  bool is_batched() const { return mean.is_batched || var.is_batched; }
};

// [B, C] or [C] as the channels of all examples, [B * C]. Contiguous, for that is what PyTorch's
// backward kernel takes a weight for, and one channel that all examples share folds to a view.
std::optional<Tensor> fold_channels(const Batched& x, int64_t batch_size) {
  return x.defined() ? std::make_optional(ensure_batched(x, batch_size).reshape({-1}).contiguous())
                     : std::nullopt;
}

// Saved statistics are empty when those of evaluation were used.
std::optional<Tensor> fold_saved(const Batched& x, int64_t batch_size) {
  return x.defined() && x.value.numel() > 0 ? fold_channels(x, batch_size) : optional_value(x);
}

Batched unfold_saved(const Tensor& saved, int64_t batch_size) {
  return saved.numel() == 0 ? Batched{saved, false}
                            : Batched{unfold_items(saved, batch_size), true};
}

// Statistics that were folded by a copy take their update back.
void write_back(const Batched& statistics, const std::optional<Tensor>& folded) {
  if (folded.has_value() && !statistics.value.is_contiguous()) {
    statistics.value.copy_(folded->view_symint(statistics.value.sym_sizes()));
  }
}

void check_update(const Batched& input, const Statistics& statistics) {
  const bool differs = input.is_batched || statistics.is_batched();
  const bool is_shared = (statistics.mean.defined() && !statistics.mean.is_batched) ||
                         (statistics.var.defined() && !statistics.var.is_batched);
  TORCH_CHECK(!statistics.training || !differs || !is_shared,
              "functx.vmap: batch_norm got a batched tensor as input while the running_mean or "
              "running_var, which training mode updates in place, is the same for every example. "
              "Use GroupNorm instead, create the module with track_running_stats=False, or take "
              "the statistics out of a finished one by "
              "functx.experimental.replace_all_batch_norm_modules_(module). In evaluation mode "
              "(module.eval()) it works as it is; buffers that differ between examples, from "
              "functx.stack_module_state, are updated.");
}

Triple batch_norm(const Batched& input, const Batched& weight, const Batched& bias,
                  const Statistics& statistics) {
  const auto& [mean, var, training, momentum, eps] = statistics;
  check_update(input, statistics);
  const auto call = [&](const Tensor& x, const std::optional<Tensor>& w,
                        const std::optional<Tensor>& b, const std::optional<Tensor>& m,
                        const std::optional<Tensor>& v) {
    return ops::native_batch_norm::call(x, w, b, m, v, training, momentum, eps);
  };
  const bool affine_differs = weight.is_batched || bias.is_batched;
  if (input.is_batched && !training && !affine_differs && !statistics.is_batched()) {
    // Evaluation with everything shared: the batch joins N.
    auto [output, save_mean, save_invstd] = call(input.value.flatten(0, 1), optional_value(weight),
                                                 optional_value(bias), mean.value, var.value);
    return {{output.unflatten(0, {batch_size(input), input.value.size(1)}), true},
            {save_mean, false},
            {save_invstd, false}};
  }
  if (!input.is_batched && !statistics.is_batched()) {
    if (!affine_differs) {
      auto [output, save_mean, save_invstd] =
          call(input.value, optional_value(weight), optional_value(bias), optional_value(mean),
               optional_value(var));
      return {{output, false}, {save_mean, false}, {save_invstd, false}};
    }
    // One normalisation for all, then the weight and bias of each.
    auto [output, save_mean, save_invstd] =
        call(input.value, std::nullopt, std::nullopt, optional_value(mean), optional_value(var));
    const auto shaped = [&](const Batched& x) {
      const std::vector<int64_t> ones(std::max<int64_t>(0, input.logical_dim() - 2), 1);
      std::vector<int64_t> shape{x.is_batched ? batch_size(x) : 1, 1, x.value.size(-1)};
      shape.insert(shape.end(), ones.begin(), ones.end());
      return x.value.reshape(shape);
    };
    Tensor result = output.unsqueeze(0);
    result = weight.defined() ? result.mul(shaped(weight)) : result;
    result = bias.defined() ? result.add(shaped(bias)) : result;
    return {{result.to(output.scalar_type()), true}, {save_mean, false}, {save_invstd, false}};
  }
  const int64_t size = *common_batch_size({&input, &mean, &var});
  check_any_examples(size);
  const auto folded_mean = fold_channels(mean, size);
  const auto folded_var = fold_channels(var, size);
  auto [output, save_mean, save_invstd] =
      call(fold_batch_into(ensure_batched(input, size), 1), fold_channels(weight, size),
           fold_channels(bias, size), folded_mean, folded_var);
  if (training) {
    write_back(mean, folded_mean);
    write_back(var, folded_var);
  }
  return {{unfold_batch_from(output, 1, size), true},
          unfold_saved(save_mean, size),
          unfold_saved(save_invstd, size)};
}

Triple batch_norm_backward(const Batched& grad, const Batched& input, const Batched& weight,
                           const Batched& mean, const Batched& var, const Batched& save_mean,
                           const Batched& save_invstd, bool training, double eps,
                           const std::array<bool, 3>& mask) {
  const auto size =
      common_batch_size({&grad, &input, &weight, &mean, &var, &save_mean, &save_invstd});
  if (!size) {
    auto [grad_input, grad_weight, grad_bias] = ops::native_batch_norm_backward::call(
        grad.value, input.value, optional_value(weight), optional_value(mean), optional_value(var),
        optional_value(save_mean), optional_value(save_invstd), training, eps, mask);
    return {{grad_input, false}, {grad_weight, false}, {grad_bias, false}};
  }
  check_any_examples(*size);
  const auto fold = [&](const Batched& x) {
    return with_strides_of_format(fold_batch_into(ensure_batched(x, *size), 1));
  };
  auto [grad_input, grad_weight, grad_bias] = ops::native_batch_norm_backward::call(
      fold(grad), fold(input), fold_channels(weight, *size), fold_channels(mean, *size),
      fold_channels(var, *size), fold_saved(save_mean, *size), fold_saved(save_invstd, *size),
      training, eps, mask);
  const auto unfold = [&](const Tensor& x) {
    return x.defined() ? Batched{unfold_items(x, *size), true} : Batched{};
  };
  return {grad_input.defined() ? Batched{unfold_batch_from(grad_input, 1, *size), true} : Batched{},
          unfold(grad_weight), unfold(grad_bias)};
}

// What a backend keeps for its own backward operator, which is not called for batches.
Batched no_reserve(const Batched& input) {
  return {input.value.new_empty({0}, at::TensorOptions().dtype(at::kByte)), false};
}

std::tuple<Batched, Batched, Batched, Batched> with_reserve(const Batched& input, Triple results) {
  auto& [output, save_mean, save_invstd] = results;
  return {std::move(output), std::move(save_mean), std::move(save_invstd), no_reserve(input)};
}

Triple legit(const Batched& input, const Batched& weight, const Batched& bias, const Batched& mean,
             const Batched& var, bool training, double momentum, double eps) {
  return batch_norm(input, weight, bias, {mean, var, training, momentum, eps});
}

// Returns new statistics instead of writing into those it is given.
std::tuple<Batched, Batched, Batched, Batched, Batched> legit_functional(
    const Batched& input, const Batched& weight, const Batched& bias, const Batched& mean,
    const Batched& var, bool training, double momentum, double eps) {
  using Op = ops::_native_batch_norm_legit_functional;
  const auto size = common_batch_size({&input, &weight, &bias, &mean, &var});
  if (!size) {
    auto [output, save_mean, save_invstd, new_mean, new_var] =
        Op::call(input.value, optional_value(weight), optional_value(bias), mean.value, var.value,
                 training, momentum, eps);
    return {{output, false},
            {save_mean, false},
            {save_invstd, false},
            {new_mean, false},
            {new_var, false}};
  }
  check_any_examples(*size);
  auto [output, save_mean, save_invstd, new_mean, new_var] =
      Op::call(fold_batch_into(ensure_batched(input, *size), 1), fold_channels(weight, *size),
               fold_channels(bias, *size), *fold_channels(mean, *size), *fold_channels(var, *size),
               training, momentum, eps);
  return {{unfold_batch_from(output, 1, *size), true},
          unfold_saved(save_mean, *size),
          unfold_saved(save_invstd, *size),
          unfold_saved(new_mean, *size),
          unfold_saved(new_var, *size)};
}

Triple without_statistics(const Batched& input, const Batched& weight, const Batched& bias,
                          bool training, double momentum, double eps) {
  const Batched none;
  return batch_norm(input, weight, bias, {none, none, training, momentum, eps});
}

Triple no_training(const Batched& input, const Batched& weight, const Batched& bias,
                   const Batched& mean, const Batched& var, double momentum, double eps) {
  return batch_norm(input, weight, bias, {mean, var, false, momentum, eps});
}

template <bool update>
std::tuple<Batched, Batched, Batched, Batched> with_or_without_update(
    const Batched& input, const Batched& weight, const Batched& bias, const Batched& mean,
    const Batched& var, double momentum, double eps) {
  return with_reserve(input, batch_norm(input, weight, bias, {mean, var, update, momentum, eps}));
}

Triple backward_with_reserve(const Batched& grad, const Batched& input, const Batched& weight,
                             const Batched& mean, const Batched& var, const Batched& save_mean,
                             const Batched& save_var, bool update, double eps,
                             const std::array<bool, 3>& mask, const Batched&) {
  return batch_norm_backward(grad, input, weight, mean, var, save_mean, save_var, update, eps,
                             mask);
}

std::tuple<Batched, Batched, Batched, Batched> cudnn(const Batched& input, const Batched& weight,
                                                     const Batched& bias, const Batched& mean,
                                                     const Batched& var, bool training,
                                                     double momentum, double eps) {
  return with_reserve(input, batch_norm(input, weight, bias, {mean, var, training, momentum, eps}));
}

Triple cudnn_backward(const Batched& input, const Batched& grad, const Batched& weight,
                      const Batched& mean, const Batched& var, const Batched& save_mean,
                      const Batched& save_var, double eps, const Batched&) {
  return batch_norm_backward(grad, input, weight, mean, var, save_mean, save_var, true, eps,
                             {true, true, true});
}

std::tuple<Batched, Batched, Batched, Batched, Batched, Batched> update_functional(
    const Batched& input, const Batched& weight, const Batched& bias, const Batched& mean,
    const Batched& var, double momentum, double eps) {
  const auto [output, save_mean, save_invstd, new_mean, new_var] =
      legit_functional(input, weight, bias, mean, var, /*training=*/true, momentum, eps);
  return std::tuple_cat(with_reserve(input, {output, save_mean, save_invstd}),
                        std::make_tuple(new_mean, new_var));
}

// The statistics alone.
std::tuple<Batched, Batched> update_stats(const Batched& input, const Batched& mean,
                                          const Batched& var, double momentum) {
  check_update(input, {mean, var, /*training=*/true, momentum, /*eps=*/0});
  const auto size = common_batch_size({&input, &mean, &var});
  if (!size) {
    auto [batch_mean, batch_var] = ops::batch_norm_update_stats::call(
        input.value, optional_value(mean), optional_value(var), momentum);
    return {{batch_mean, false}, {batch_var, false}};
  }
  const auto folded_mean = fold_channels(mean, *size);
  const auto folded_var = fold_channels(var, *size);
  auto [batch_mean, batch_var] = ops::batch_norm_update_stats::call(
      fold_batch_into(ensure_batched(input, *size), 1), folded_mean, folded_var, momentum);
  write_back(mean, folded_mean);
  write_back(var, folded_var);
  return {unfold_saved(batch_mean, *size), unfold_saved(batch_var, *size)};
}

}  // namespace

FUNCTX_RULES(batch_norm) {
  batching_rule<ops::native_batch_norm, legit>();
  batching_rule<ops::_native_batch_norm_legit, legit>();
  batching_rule<ops::_native_batch_norm_legit_functional, legit_functional>();
  batching_rule<ops::_batch_norm_with_update_functional, update_functional>();
  batching_rule<ops::batch_norm_update_stats, update_stats>();
  batching_rule<ops::_native_batch_norm_legit_no_stats, without_statistics>();
  batching_rule<ops::_native_batch_norm_legit_no_training, no_training>();
  batching_rule<ops::_batch_norm_with_update, with_or_without_update<true>>();
  batching_rule<ops::_batch_norm_no_update, with_or_without_update<false>>();
  batching_rule<ops::cudnn_batch_norm, cudnn>();
  batching_rule<ops::native_batch_norm_backward, batch_norm_backward>();
  batching_rule<ops::batch_norm_backward, backward_with_reserve>();
  batching_rule<ops::cudnn_batch_norm_backward, cudnn_backward>();
}

}  // namespace functx
