// Resampling: on a regular grid of another size, or at given points.
#include "batching/fold.h"

namespace functx {
namespace {

// (grad_output, output_size, input_size, ...): input_size begins with N.
template <class Op, class Signature = typename Op::schema>
struct UpsampleBackward;

template <class Op, class... Rest>
struct UpsampleBackward<Op,
                        Tensor(const Tensor&, c10::SymIntArrayRef, c10::SymIntArrayRef, Rest...)> {
  static Tensor call(const LevelPtr& level, const Tensor& grad, c10::SymIntArrayRef output_size,
                     c10::SymIntArrayRef input_size, Rest... rest) {
    const Batched g = unwrap_batched(level, grad);
    if (!g.is_batched) {
      return make_batched(level, {Op::call(g.value, output_size, input_size, rest...), false});
    }
    if (grad.dim() != static_cast<int64_t>(input_size.size())) {
      return by_loop<Op>(grad, output_size, input_size, rest...);
    }
    c10::SymDimVector folded_size(input_size.begin(), input_size.end());
    folded_size[0] = folded_size[0] * level->batch_size;
    const Tensor result = Op::call(g.value.flatten(0, 1), output_size, folded_size, rest...);
    return make_batched(level, {unfold_items(result, level->batch_size), true});
  }
};

template <class... Ops>
void upsample_backward() {
  ((Rules<Ops>::batching = &UpsampleBackward<Ops>::call, install_kernel<Ops>()), ...);
}

// input [N, C, ..], grid [N, .., 2 or 3]. A grid or an input that is the same for every example is
// read where it lies: the batch joins the channels, or the first dimension of the points.
template <class Op, class... Modes>
Batched grid_sampler(const Batched& input, const Batched& grid, const Modes&... modes) {
  if (!input.is_batched && !grid.is_batched) {
    return {Op::call(input.value, grid.value, modes...), false};
  }
  TORCH_CHECK(input.logical_dim() == grid.logical_dim(), Op::name,
              ": expected input and grid to have same number of dimensions, but got input with ",
              input.logical_dim(), " and grid with ", grid.logical_dim(), " dimensions");
  if (!grid.is_batched) {
    const Tensor sampled = Op::call(fold_batch_into(input.value, 1), grid.value, modes...);
    return {unfold_batch_from(sampled, 1, batch_size(input)), true};
  }
  if (!input.is_batched) {
    const Tensor sampled = Op::call(input.value, fold_batch_into(grid.value, 1), modes...);
    return {unfold_batch_from(sampled, 2, batch_size(grid)), true};
  }
  const Tensor sampled = Op::call(input.value.flatten(0, 1), grid.value.flatten(0, 1), modes...);
  return {unfold_items(sampled, batch_size(input)), true};
}

Batched affine_grid_generator(const Batched& theta, c10::SymIntArrayRef size, bool align_corners) {
  if (!theta.is_batched) {
    return {ops::affine_grid_generator::call(theta.value, size, align_corners), false};
  }
  TORCH_CHECK(theta.logical_dim() == 3 && !size.empty() && theta.value.sym_size(1) == size[0],
              "affine_grid_generator: expected theta of shape [N, 2, 3] or [N, 3, 4] and a size "
              "that begins with N, but got theta of shape ",
              theta.value.sym_sizes().slice(1), " and size ", size);
  c10::SymDimVector folded_size(size.begin(), size.end());
  folded_size[0] = folded_size[0] * batch_size(theta);
  const Tensor grid =
      ops::affine_grid_generator::call(theta.value.flatten(0, 1), folded_size, align_corners);
  return {unfold_items(grid, batch_size(theta)), true};
}

}  // namespace

FUNCTX_RULES(upsampling) {
  fold_items_of_rank<2, ops::upsample_linear1d, ops::upsample_nearest1d,
                     ops::_upsample_nearest_exact1d>();
  fold_items_of_rank<3, ops::upsample_bilinear2d, ops::upsample_bicubic2d, ops::upsample_nearest2d,
                     ops::_upsample_nearest_exact2d, ops::_upsample_bilinear2d_aa,
                     ops::_upsample_bicubic2d_aa>();
  fold_items_of_rank<4, ops::upsample_trilinear3d, ops::upsample_nearest3d,
                     ops::_upsample_nearest_exact3d>();
  upsample_backward<ops::upsample_linear1d_backward, ops::upsample_nearest1d_backward,
                    ops::_upsample_nearest_exact1d_backward, ops::upsample_bilinear2d_backward,
                    ops::upsample_bicubic2d_backward, ops::upsample_nearest2d_backward,
                    ops::_upsample_nearest_exact2d_backward, ops::_upsample_bilinear2d_aa_backward,
                    ops::_upsample_bicubic2d_aa_backward, ops::upsample_trilinear3d_backward,
                    ops::upsample_nearest3d_backward, ops::_upsample_nearest_exact3d_backward>();
}

FUNCTX_RULES(grid_sampling) {
  batching_rule<ops::grid_sampler_2d, grid_sampler<ops::grid_sampler_2d, int64_t, int64_t, bool>>();
  batching_rule<ops::grid_sampler_3d, grid_sampler<ops::grid_sampler_3d, int64_t, int64_t, bool>>();
  batching_rule<ops::_grid_sampler_2d_cpu_fallback,
                grid_sampler<ops::_grid_sampler_2d_cpu_fallback, int64_t, int64_t, bool>>();
  batching_rule<ops::cudnn_grid_sampler, grid_sampler<ops::cudnn_grid_sampler>>();
  fold_items_of_rank<3, ops::grid_sampler_2d_backward, ops::cudnn_grid_sampler_backward,
                     ops::_grid_sampler_2d_cpu_fallback_backward>();
  fold_items_of_rank<4, ops::grid_sampler_3d_backward>();
  batching_rule<ops::affine_grid_generator, affine_grid_generator>();
}

}  // namespace functx
