// Sampling images at the points of a grid, written out: what PyTorch's fused kernels compute, in
// operators that have derivatives of every order.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace functx {

using at::Tensor;

struct GridSampling {
  enum Interpolation : int64_t { Linear = 0, Nearest = 1, Cubic = 2 };
  enum Padding : int64_t { Zeros = 0, Border = 1, Reflection = 2 };

  // As the operators take them.
  int64_t interpolation;
  int64_t padding;
  bool align_corners;

  // Images [N, C, spatial...], grids [N, places..., axes], the last axis first.

  // The change of the samples [N, C, places...] along that of the grid.
  Tensor change(const Tensor& images, const Tensor& grid, const Tensor& grid_tangent) const;

  struct Gradients {
    Tensor images, grid;
  };
  Gradients gradients(const Tensor& grad, const Tensor& images, const Tensor& grid) const;
};

}  // namespace functx
