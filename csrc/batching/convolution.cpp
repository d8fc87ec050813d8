// Convolutions. What is the same for every example is read once: the batch joins N beside a shared
// weight, and the channels of each group beside a shared input. Where both sides differ, every
// example becomes a group of its own.
#include "batching/dims.h"
#include "batching/fold.h"
#include "batching/rule.h"
#include "core/memory_format.h"

namespace functx {
namespace {

struct Geometry {
  c10::SymIntArrayRef stride, padding, dilation;
  bool transposed;
  c10::SymIntArrayRef output_padding;
  int64_t groups;

  Tensor convolve(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                  int64_t all_groups) const {
    return ops::convolution::call(input, weight, bias, stride, padding, dilation, transposed,
                                  output_padding, all_groups);
  }

  Tensor input_gradient(const Tensor& grad, const Tensor& input, const Tensor& weight,
                        int64_t all_groups) const {
    return std::get<0>(ops::convolution_backward::call(
        grad, input, weight, std::nullopt, stride, padding, dilation, transposed, output_padding,
        all_groups, {true, false, false}));
  }

  Tensor weight_gradient(const Tensor& grad, const Tensor& input, const Tensor& weight,
                         int64_t all_groups) const {
    return std::get<1>(ops::convolution_backward::call(
        grad, with_default_strides(input), weight, std::nullopt, stride, padding, dilation,
        transposed, output_padding, all_groups, {false, true, false}));
  }
};

int64_t checked(const c10::SymInt& groups) {
  const int64_t count = groups.guard_int(__FILE__, __LINE__);
  TORCH_CHECK(count > 0,
              "functx.vmap: expected groups of a convolution to be greater than 0, but "
              "got groups=",
              count);
  return count;
}

// [B, .., g * n, ..] to [.., g * B * n, ..] at logical dimension `dim`: every group gets the
// channels of all examples; and back.
Tensor fold_into_groups(const Tensor& value, int64_t dim, int64_t groups) {
  return value.unflatten(dim + 1, {groups, each_of(value.size(dim + 1), groups)})
      .movedim(0, dim + 1)
      .flatten(dim, dim + 2);
}

Tensor unfold_from_groups(const Tensor& folded, int64_t dim, int64_t groups, int64_t batch_size) {
  const int64_t each = each_of(folded.size(dim), groups * batch_size);
  return folded.unflatten(dim, {groups, batch_size, each})
      .movedim(dim + 1, 0)
      .flatten(dim + 1, dim + 2);
}

// A weight is [g * out, in, ..], or [g * in, out, ..] of a transposed convolution. These put the
// weights of all examples beside each other along the output or the input channels of each group.
Tensor fold_outputs(const Tensor& weight, const Geometry& geometry) {
  return geometry.transposed ? fold_batch_into(weight, 1)
                             : fold_into_groups(weight, 0, geometry.groups);
}

Tensor unfold_outputs(const Tensor& weight, const Geometry& geometry, int64_t batch_size) {
  return geometry.transposed ? unfold_batch_from(weight, 1, batch_size)
                             : unfold_from_groups(weight, 0, geometry.groups, batch_size);
}

Tensor fold_inputs(const Tensor& weight, const Geometry& geometry) {
  return geometry.transposed ? fold_into_groups(weight, 0, geometry.groups)
                             : fold_batch_into(weight, 1);
}

Tensor unfold_inputs(const Tensor& weight, const Geometry& geometry, int64_t batch_size) {
  return geometry.transposed ? unfold_from_groups(weight, 0, geometry.groups, batch_size)
                             : unfold_batch_from(weight, 1, batch_size);
}

// Stands in where an operator asks for a tensor's shape only: `x` as a batched value.
Batched shape_of(const Batched& x, int64_t batch_size, const Tensor& like) {
  auto sizes = x.value.sym_sizes().vec();
  if (!x.is_batched) {
    sizes.insert(sizes.begin(), c10::SymInt(batch_size));
  }
  return {like.new_empty({1}).expand_symint(sizes), true};
}

Batched add_bias(Batched result, const Batched& bias) {
  if (!bias.defined()) {
    return result;
  }
  // [O] or [B, O] beside [N, O, ..].
  Tensor shaped = bias.value;
  for (int64_t dim = 2; dim < result.logical_dim(); ++dim) {
    shaped = shaped.unsqueeze(-1);
  }
  if (bias.is_batched) {
    shaped = shaped.unsqueeze(1);
  }
  return {ops::add_Tensor::call(result.value, shaped, 1), result.is_batched || bias.is_batched};
}

Batched convolve(const Batched& input, const Batched& weight, const Batched& bias,
                 const Geometry& geometry) {
  const int64_t groups = geometry.groups;
  if (!weight.is_batched) {
    if (!input.is_batched) {
      return bias.is_batched
                 ? add_bias({geometry.convolve(input.value, weight.value, {}, groups), false}, bias)
                 : Batched{
                       geometry.convolve(input.value, weight.value, optional_value(bias), groups),
                       false};
    }
    const Tensor result =
        geometry.convolve(input.value.flatten(0, 1), weight.value,
                          bias.is_batched ? std::nullopt : optional_value(bias), groups);
    const Batched unfolded{result.unflatten(0, {batch_size(input), input.value.size(1)}), true};
    return bias.is_batched ? add_bias(unfolded, bias) : unfolded;
  }
  const int64_t size = batch_size(weight);
  if (!input.is_batched) {
    const Tensor result =
        geometry.convolve(input.value, fold_outputs(weight.value, geometry), {}, groups);
    return add_bias({unfold_from_groups(result, 1, groups, size), true}, bias);
  }
  const std::optional<Tensor> biases =
      bias.defined() ? std::make_optional(ensure_batched(bias, size).flatten(0, 1)) : std::nullopt;
  const Tensor result = geometry.convolve(fold_batch_into(input.value, 1),
                                          weight.value.flatten(0, 1), biases, groups * size);
  return {unfold_batch_from(result, 1, size), true};
}

Batched input_gradient(const Batched& grad, const Batched& input, const Batched& weight,
                       const Geometry& geometry) {
  const int64_t groups = geometry.groups;
  if (!grad.is_batched && !weight.is_batched) {
    const Tensor shape = input.is_batched ? input.value.select(0, 0) : input.value;
    return {geometry.input_gradient(grad.value, shape, weight.value, groups), false};
  }
  const int64_t size = *common_batch_size({&grad, &weight});
  const Tensor inputs = input.is_batched ? input.value : shape_of(input, size, grad.value).value;
  if (!weight.is_batched) {
    const Tensor result = geometry.input_gradient(grad.value.flatten(0, 1), inputs.flatten(0, 1),
                                                  weight.value, groups);
    return {result.unflatten(0, {size, inputs.size(1)}), true};
  }
  if (!grad.is_batched) {
    const Tensor result = geometry.input_gradient(grad.value, fold_into_groups(inputs, 1, groups),
                                                  fold_inputs(weight.value, geometry), groups);
    return {unfold_from_groups(result, 1, groups, size), true};
  }
  const Tensor result =
      geometry.input_gradient(fold_batch_into(grad.value, 1), fold_batch_into(inputs, 1),
                              weight.value.flatten(0, 1), groups * size);
  return {unfold_batch_from(result, 1, size), true};
}

Batched weight_gradient(const Batched& grad, const Batched& input, const Batched& weight,
                        const Geometry& geometry) {
  const int64_t groups = geometry.groups;
  if (!grad.is_batched && !input.is_batched) {
    const Tensor shape = weight.is_batched ? weight.value.select(0, 0) : weight.value;
    return {geometry.weight_gradient(grad.value, input.value, shape, groups), false};
  }
  const int64_t size = *common_batch_size({&grad, &input});
  const Tensor weights = shape_of(weight, size, grad.value).value;
  if (!input.is_batched) {
    const Tensor result =
        geometry.weight_gradient(fold_into_groups(grad.value, 1, groups), input.value,
                                 fold_outputs(weights, geometry), groups);
    return {unfold_outputs(result, geometry, size), true};
  }
  if (!grad.is_batched) {
    const Tensor result =
        geometry.weight_gradient(grad.value, fold_into_groups(input.value, 1, groups),
                                 fold_inputs(weights, geometry), groups);
    return {unfold_inputs(result, geometry, size), true};
  }
  const Tensor result =
      geometry.weight_gradient(fold_batch_into(grad.value, 1), fold_batch_into(input.value, 1),
                               weights.flatten(0, 1), groups * size);
  return {result.unflatten(0, {size, each_of(result.size(0), size)}), true};
}

Batched bias_gradient(const Batched& grad) {
  at::DimVector dims = all_physical_dims(grad);
  dims.erase(dims.begin() + 1);
  return {ops::sum_dim_IntList::call(grad.value, dims, false, std::nullopt), grad.is_batched};
}

Batched convolution(const Batched& input, const Batched& weight, const Batched& bias,
                    c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                    c10::SymIntArrayRef dilation, bool transposed,
                    c10::SymIntArrayRef output_padding, const c10::SymInt& groups) {
  return convolve(input, weight, bias,
                  {stride, padding, dilation, transposed, output_padding, checked(groups)});
}

Batched convolution_with_flags(const Batched& input, const Batched& weight, const Batched& bias,
                               c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                               c10::SymIntArrayRef dilation, bool transposed,
                               c10::SymIntArrayRef output_padding, const c10::SymInt& groups, bool,
                               bool, bool, bool) {
  return convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding,
                     groups);
}

Batched mkldnn_convolution(const Batched& input, const Batched& weight, const Batched& bias,
                           c10::SymIntArrayRef padding, c10::SymIntArrayRef stride,
                           c10::SymIntArrayRef dilation, const c10::SymInt& groups) {
  const std::vector<c10::SymInt> no_padding(padding.size(), 0);
  return convolution(input, weight, bias, stride, padding, dilation, false, no_padding, groups);
}

std::tuple<Batched, Batched, Batched> convolution_backward(
    const Batched& grad, const Batched& input, const Batched& weight,
    at::OptionalSymIntArrayRef bias_sizes, c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
    c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding,
    const c10::SymInt& groups, const std::array<bool, 3>& mask) {
  if (!grad.is_batched && !input.is_batched && !weight.is_batched) {
    auto [grad_input, grad_weight, grad_bias] = ops::convolution_backward::call(
        grad.value, input.value, weight.value, bias_sizes, stride, padding, dilation, transposed,
        output_padding, groups, mask);
    return {{grad_input, false}, {grad_weight, false}, {grad_bias, false}};
  }
  const Geometry geometry{stride, padding, dilation, transposed, output_padding, checked(groups)};
  return {mask[0] ? input_gradient(grad, input, weight, geometry) : Batched{},
          mask[1] ? weight_gradient(grad, input, weight, geometry) : Batched{},
          mask[2] ? bias_gradient(grad) : Batched{}};
}

// self [T, N, C], weight [k, C, O], bias [O].
Batched conv_tbc(const Batched& self, const Batched& weight, const Batched& bias, int64_t pad) {
  if (!self.is_batched && !weight.is_batched && !bias.is_batched) {
    return {ops::conv_tbc::call(self.value, weight.value, bias.value, pad), false};
  }
  const std::array<c10::SymInt, 1> one{1}, padding{pad}, none{0};
  const auto channels_first = [](const Batched& x, at::IntArrayRef order) {
    at::DimVector dims = physical_dims(x, order);
    if (x.is_batched) {
      dims.insert(dims.begin(), 0);
    }
    return Batched{x.value.permute(dims), x.is_batched};
  };
  const Batched result =
      convolution(channels_first(self, {1, 2, 0}), channels_first(weight, {2, 1, 0}), bias, one,
                  padding, one, false, none, 1);
  return channels_first(result, {2, 0, 1});
}

}  // namespace

FUNCTX_RULES(convolution) {
  batching_rule<ops::convolution, convolution>();
  batching_rule<ops::_convolution, convolution_with_flags>();
  batching_rule<ops::mkldnn_convolution, mkldnn_convolution>();
  batching_rule<ops::convolution_backward, convolution_backward>();
  batching_rule<ops::conv_tbc, conv_tbc>();
}

}  // namespace functx
