// Sampling images at the points of a grid: linear in the image, not in the grid.
#include "forward_ad/conform.h"
#include "forward_ad/grid_sampling.h"
#include "forward_ad/inplace.h"
#include "forward_ad/rule.h"

namespace functx {
namespace {

// The gradient by a grid is summed over the channels: with a grid for each, as images of one
// channel, the gradient of the sum of all samples holds the slopes of each.
template <class Backward>
Tensor change_by_grid(const Tensor& input, const Dual& grid, const GridSampling& sampling) {
  if (detail::is_recorded_below(input, grid)) {  // that kernel has no derivative
    return sampling.change(input, grid.primal, grid.tangent);
  }
  const Tensor images = input.flatten(0, 1).unsqueeze(1);
  auto sizes = grid.primal.sym_sizes().vec();
  sizes.insert(sizes.begin() + 1, input.sym_size(1));
  const Tensor grids = grid.primal.unsqueeze(1).expand_symint(sizes).flatten(0, 1);
  const Tensor ones = grids.select(-1, 0).unsqueeze(1);
  const Tensor slopes = std::get<1>(Backward::call(ones.new_ones_symint(ones.sym_sizes()), images,
                                                   grids, sampling.interpolation, sampling.padding,
                                                   sampling.align_corners, {false, true}));
  return slopes.view_symint(sizes).mul(grid.tangent.unsqueeze(1)).sum(-1);
}

template <class Op, class Backward>
Dual grid_sampler(const Dual& input, const Dual& grid, int64_t interpolation, int64_t padding,
                  bool align_corners) {
  const auto sample = [&](const Tensor& images) {
    return Op::call(images, grid.primal, interpolation, padding, align_corners);
  };
  Tensor primal = sample(input.primal);
  Tensor tangent;
  if (input.has_tangent()) {
    tangent = sample(input.tangent);
  }
  if (grid.has_tangent()) {
    tangent = sum_of(
        std::move(tangent),
        change_by_grid<Backward>(input.primal, grid, {interpolation, padding, align_corners}));
  }
  return {std::move(primal), std::move(tangent)};
}

// Of duals that a tape of this level does not see.
std::tuple<Tensor, Tensor> grid_sampler_backward(const LevelPtr& level, const Tensor& grad,
                                                 const Tensor& input, const Tensor& grid,
                                                 int64_t interpolation, int64_t padding,
                                                 bool align_corners, std::array<bool, 2>) {
  const auto dual = [&](const Tensor& x) { return untaped(level, x); };
  const GridSampling sampling{interpolation, padding, align_corners};
  auto [by_input, by_grid] = sampling.gradients(dual(grad), dual(input), dual(grid));
  return {by_input, by_grid};
}

}  // namespace

FUNCTX_RULES(jvp_grid_sampler) {
  dual_rule<ops::grid_sampler_2d,
            grid_sampler<ops::grid_sampler_2d, ops::grid_sampler_2d_backward>>();
  dual_rule<ops::grid_sampler_3d,
            grid_sampler<ops::grid_sampler_3d, ops::grid_sampler_3d_backward>>();
  Rules<ops::grid_sampler_2d_backward>::dual = &grid_sampler_backward;
  install_kernel<ops::grid_sampler_2d_backward>();
  Rules<ops::grid_sampler_3d_backward>::dual = &grid_sampler_backward;
  install_kernel<ops::grid_sampler_3d_backward>();
}

}  // namespace functx
