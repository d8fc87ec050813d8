#include "forward_ad/grid_sampling.h"

#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <utility>

namespace functx {
namespace {

// A neighbor of all points along one axis, and its share in the samples.
struct Tap {
  Tensor index;
  Tensor is_inside;
  Tensor weight;
  Tensor slope;  // of the weight, by the coordinate of the grid
};

// One axis of the images, of `size` pixels.
class Axis {
 public:
  Axis(const GridSampling& sampling, int64_t size) : sampling_(sampling), size_(size) {}

  std::vector<Tap> taps(const Tensor& coordinate) const {
    const double pixels = (sampling_.align_corners ? size_ - 1.0 : double(size_)) / 2;
    const Tensor position = coordinate.add(1).mul(pixels).sub(sampling_.align_corners ? 0.0 : 0.5);
    switch (sampling_.interpolation) {
      case GridSampling::Nearest:
        return {constant_tap(padded(position).first.round())};
      case GridSampling::Cubic:
        return cubic_taps(position, pixels);
      default:
        return linear_taps(position, pixels);
    }
  }

 private:
  // A position moved into the image, and what its slope is multiplied by on the way.
  std::pair<Tensor, Tensor> padded(const Tensor& position) const {
    Tensor moved = position;
    Tensor factor = at::ones_like(position);
    if (sampling_.padding == GridSampling::Reflection) {
      std::tie(moved, factor) = reflected(position);
    }
    if (sampling_.padding != GridSampling::Zeros) {
      const Tensor is_kept = moved.gt(0).logical_and(moved.lt(size_ - 1));
      factor = factor.mul(is_kept);
      moved = moved.clamp(0, size_ - 1);
    }
    return {moved, factor};
  }

  // Back and forth between the outer pixels, or between their outer borders.
  std::pair<Tensor, Tensor> reflected(const Tensor& position) const {
    const double low = sampling_.align_corners ? 0.0 : -0.5;
    const double span = sampling_.align_corners ? size_ - 1.0 : double(size_);
    if (span == 0) {
      return {at::zeros_like(position), at::zeros_like(position)};
    }
    const Tensor distance = position.sub(low).abs();
    const Tensor rest = distance.fmod(span);
    const Tensor is_odd = distance.div(span).floor().fmod(2).eq(1);
    const Tensor outward = position.lt(low).logical_xor(is_odd);
    return {at::where(is_odd, rest.neg().add(span), rest).add(low),
            outward.to(position.scalar_type()).mul(-2).add(1)};
  }

  Tap tap(const Tensor& place, Tensor weight, Tensor slope) const {
    const Tensor is_inside = place.ge(0).logical_and(place.lt(size_));
    return {place.clamp(0, size_ - 1).to(at::kLong), is_inside, std::move(weight),
            std::move(slope)};
  }

  Tap constant_tap(const Tensor& place) const {
    return tap(place, at::ones_like(place), at::zeros_like(place));
  }

  std::vector<Tap> linear_taps(const Tensor& position, double pixels) const {
    const auto [moved, factor] = padded(position);
    const Tensor first = moved.floor();
    const Tensor weight = moved.sub(first);
    const Tensor slope = factor.mul(pixels);
    return {tap(first, weight.neg().add(1), slope.neg()), tap(first.add(1), weight, slope)};
  }

  // Keys' convolution, with the parameter that PyTorch has chosen. Each neighbor is padded for
  // itself.
  std::vector<Tap> cubic_taps(const Tensor& position, double pixels) const {
    constexpr double a = -0.75;
    const Tensor first = position.floor();
    const Tensor t = position.sub(first);
    std::vector<Tap> taps;
    for (int64_t k = -1; k <= 2; ++k) {
      const Tensor d = k <= 0 ? t.sub(k) : t.neg().add(k);
      const bool is_near = k == 0 || k == 1;
      const Tensor weight = is_near ? d.mul(a + 2).sub(a + 3).mul(d).mul(d).add(1)
                                    : d.sub(5).mul(d).add(8).mul(d).sub(4).mul(a);
      const Tensor slope = is_near ? d.mul(3 * (a + 2)).sub(2 * (a + 3)).mul(d)
                                   : d.mul(3).sub(10).mul(d).add(8).mul(a);
      taps.push_back(
          tap(padded(first.add(k)).first.round(), weight, slope.mul(k <= 0 ? pixels : -pixels)));
    }
    return taps;
  }

  GridSampling sampling_;
  int64_t size_;
};

// One tap of every axis: a pixel next to each of the points.
struct Pixel {
  std::vector<const Tap*> taps;
  Tensor index;  // into the flattened image, [N, places]
  Tensor is_inside;

  // The product of the weights, with the slope in place of that of `axis`.
  Tensor weight(int64_t axis = -1) const {
    Tensor product = is_inside;
    for (size_t i = 0; i < taps.size(); ++i) {
      product = product.mul(static_cast<int64_t>(i) == axis ? taps[i]->slope : taps[i]->weight);
    }
    return product;
  }
};

// All pixels that the samples are made of.
class Pixels {
 public:
  Pixels(const GridSampling& sampling, const Tensor& images, const Tensor& grid) {
    const int64_t axes = grid.size(-1);
    for (int64_t i = 0; i < axes; ++i) {
      const int64_t size = images.size(2 + i);
      taps_.push_back(Axis(sampling, size).taps(grid.select(-1, axes - 1 - i).flatten(1)));
      sizes_.push_back(size);
    }
    add({}, 0);
  }

  std::vector<Pixel>::const_iterator begin() const { return pixels_.begin(); }
  std::vector<Pixel>::const_iterator end() const { return pixels_.end(); }

 private:
  void add(const Pixel& begun, size_t axis) {
    if (axis == taps_.size()) {
      pixels_.push_back(begun);
      return;
    }
    for (const Tap& tap : taps_[axis]) {
      Pixel pixel = begun;
      pixel.taps.push_back(&tap);
      pixel.index = axis == 0 ? tap.index : begun.index.mul(sizes_[axis]).add(tap.index);
      pixel.is_inside = axis == 0 ? tap.is_inside : begun.is_inside.logical_and(tap.is_inside);
      add(pixel, axis + 1);
    }
  }

  std::vector<std::vector<Tap>> taps_;
  std::vector<int64_t> sizes_;
  std::vector<Pixel> pixels_;
};

Tensor for_channels(const Tensor& index, const Tensor& images) {
  return index.unsqueeze(1).expand({index.size(0), images.size(1), index.size(1)});
}

// The coordinate of the grid that belongs to an axis of the images.
int64_t coordinate_of(int64_t axis, const Tensor& grid) { return grid.size(-1) - 1 - axis; }

}  // namespace

Tensor GridSampling::change(const Tensor& images, const Tensor& grid,
                            const Tensor& grid_tangent) const {
  const Tensor flat = images.flatten(2);
  Tensor sum;
  for (const Pixel& pixel : Pixels(*this, images, grid)) {
    const Tensor values = flat.gather(2, for_channels(pixel.index, images));
    for (int64_t axis = 0; axis < grid.size(-1); ++axis) {
      const Tensor along = grid_tangent.select(-1, coordinate_of(axis, grid)).flatten(1);
      const Tensor term = values.mul(pixel.weight(axis).mul(along).unsqueeze(1));
      sum = sum.defined() ? sum.add(term) : term;
    }
  }
  auto sizes = grid.sizes().vec();
  sizes.pop_back();
  sizes.insert(sizes.begin() + 1, images.size(1));
  return sum.view(sizes);
}

GridSampling::Gradients GridSampling::gradients(const Tensor& grad, const Tensor& images,
                                                const Tensor& grid) const {
  const int64_t axes = grid.size(-1);
  const Tensor flat = images.flatten(2), rows = grad.flatten(2);
  Tensor by_images = at::zeros_like(flat);
  std::vector<Tensor> by_coordinate(axes, at::zeros_like(grid.select(-1, 0).flatten(1)));
  for (const Pixel& pixel : Pixels(*this, images, grid)) {
    const Tensor index = for_channels(pixel.index, images);
    by_images = by_images.scatter_add(2, index, rows.mul(pixel.weight().unsqueeze(1)));
    const Tensor inner = rows.mul(flat.gather(2, index)).sum(1);
    for (int64_t axis = 0; axis < axes; ++axis) {
      Tensor& sum = by_coordinate[coordinate_of(axis, grid)];
      sum = sum.add(inner.mul(pixel.weight(axis)));
    }
  }
  return {by_images.view_as(images), at::stack(by_coordinate, -1).view_as(grid)};
}

}  // namespace functx
