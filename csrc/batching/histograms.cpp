// Histograms with a fixed number of bins. The bin of every value is found by the arithmetic of
// PyTorch's kernels, so that a value on an edge falls on the same side of it as in a loop.
#include <cmath>

#include "batching/boxed_rules.h"
#include "batching/by_loop.h"
#include "batching/dims.h"
#include "batching/fold.h"
#include "batching/value_checks.h"

namespace functx {
namespace {

using Limits = std::optional<at::ArrayRef<double>>;
using OptionalTensor = std::optional<Tensor>;

// From so many elements on, a call of the CPU's kernel is quicker than what replaces it here.
bool is_large(const Tensor& example) { return example.is_cpu() && example.numel() > 2000; }

// --- counting ------------------------------------------------------------------------------------

struct Range {
  Tensor low, high;
};

Tensor is_within(const Tensor& values, const Range& range) {
  return values.ge(range.low).logical_and(values.le(range.high));
}

// The number of the bin that each value falls into, made from the position of the value between the
// edges. The last bin includes its upper edge; values outside of all bins get some number.
Tensor close_last(const Tensor& positions, int64_t count) { return positions.clamp(0, count - 1); }

// How far each value is from the lower to the upper limit, in `count` steps.
Tensor divide(const Tensor& values, const Range& limits, int64_t count) {
  const Tensor steps = values.new_full({1}, static_cast<double>(count));
  return values.sub(limits.low).mul(steps).div(limits.high.sub(limits.low)).to(at::kLong);
}

// How many values of each example fall into each bin, or the sum of their weights: [B, count] from
// [B, n].
Tensor sum_by_bin(const Tensor& bins, const Tensor& is_inside, const Tensor& weights, int64_t count,
                  at::ScalarType dtype) {
  const Tensor amounts =
      weights.defined() ? weights.masked_fill(is_inside.logical_not(), 0) : is_inside.to(dtype);
  return amounts.new_zeros({bins.size(0), count}).scatter_add(1, bins, amounts);
}

// --- ranges --------------------------------------------------------------------------------------

// The smallest and the largest value of each example, dimension 1 of `values`. In float64, as
// limits that are given are.
Range extremes(const Tensor& values, const char* name) {
  Range range{values.amin({1}).to(at::kDouble), values.amax({1}).to(at::kDouble)};
  TORCH_CHECK(holds_everywhere(range.low.isfinite().logical_and(range.high.isfinite())), name,
              ": the values of an example of functx.vmap are not all finite, so that they have no "
              "range. Give the range, or replace them by torch.nan_to_num.");
  return range;
}

// A range without extent is widened to both sides.
Range widen_empty(const Range& range, double by) {
  const Tensor margin = range.low.eq(range.high).to(at::kDouble).mul(by);
  return {range.low.sub(margin), range.high.add(margin)};
}

bool is_valid(double low, double high) {
  return std::isfinite(low) && std::isfinite(high) && low <= high;
}

// --- bins of equal width, by division ------------------------------------------------------------

Tensor histc(const LevelPtr& level, const Tensor& self, int64_t bins, const at::Scalar& min,
             const at::Scalar& max) {
  const Batched x = unwrap_batched(level, self);
  if (!x.is_batched) {
    return make_batched(level, {ops::histc::call(x.value, bins, min, max), false});
  }
  const double low = min.toDouble();
  const double high = max.toDouble();
  if (is_large(self) || !self.is_floating_point() || bins <= 0 || !is_valid(low, high)) {
    return by_loop<ops::histc>(self, bins, min, max);
  }
  // CUDA calculates in float32 at least, the CPU in the type of the values.
  const auto dtype =
      self.is_cuda() && self.scalar_type() != at::kDouble ? at::kFloat : self.scalar_type();
  const Tensor values = x.value.reshape({batch_size(x), self.numel()});
  const auto constant = [&](double value) {
    return values.new_full({1}, value, at::TensorOptions(at::kDouble));
  };
  const Range range =
      widen_empty(low == high && self.numel() > 0 ? extremes(values, "torch.histc")
                                                  : Range{constant(low), constant(high)},
                  1);
  const Range limits{range.low.unsqueeze(1).to(dtype), range.high.unsqueeze(1).to(dtype)};
  const Tensor counted = values.to(dtype);
  return make_batched(level,
                      {sum_by_bin(close_last(divide(counted, limits, bins), bins),
                                  is_within(counted, limits), Tensor(), bins, self.scalar_type()),
                       true});
}

// --- bins between edges --------------------------------------------------------------------------

// The edges of one coordinate's bins.
struct Edges {
  // [B, E] or [E]
  Batched values;
  bool are_equidistant = false;

  int64_t bin_count() const { return values.value.size(-1) - 1; }
  Range limits() const {
    return {values.value.narrow(-1, 0, 1), values.value.narrow(-1, bin_count(), 1)};
  }
};

// The position of each value [B, n] between edges: how many edges but one are not above it.
Tensor search(const Tensor& values, const Edges& edges) {
  return ops::searchsorted_Tensor::call(edges.values.value.contiguous(), values.contiguous(), false,
                                        /*right=*/true, std::nullopt, std::nullopt)
      .sub(1);
}

// The same by division, set right at the edges: of a value near one, the quotient may be on its
// other side.
Tensor search_nearby(const Tensor& values, const Edges& edges) {
  const int64_t last = edges.bin_count();
  const Tensor guess = divide(values, edges.limits(), last).clamp(0, last);
  const Tensor all = edges.values.is_batched
                         ? edges.values.value
                         : edges.values.value.expand({values.size(0), last + 1});
  const Tensor is_below = values.lt(all.gather(1, guess));
  const Tensor is_beyond = values.ge(all.gather(1, guess.add(1).clamp_max(last)));
  return guess.add(is_beyond).sub(is_below.to(at::kLong));
}

// What there is to count in each example.
struct Points {
  // [B, n, coordinates]
  Tensor values;
  // [B, n], or undefined
  Tensor weights;
};

bool are_edges(const Tensor& bins, const Tensor& self) {
  return bins.dim() == 1 && bins.numel() >= 2 && bins.scalar_type() == self.scalar_type();
}

// The arguments as `coordinates` of each point. None if they go by the loop: if nothing is
// batched, an example is large, or they do not fit together, which is for PyTorch to say.
std::optional<Points> points_of(const LevelPtr& level, const Tensor& self,
                                const OptionalTensor& weight, int64_t coordinates,
                                at::TensorList bins) {
  const Batched x = unwrap_batched(level, self);
  const Batched weights = detail::unpack(level, weight);
  const int64_t size = level->batch_size;
  const int64_t count = each_of(self.numel(), coordinates);
  const bool is_counted = self.scalar_type() == at::kFloat || self.scalar_type() == at::kDouble;
  const bool fits_weight = !weights.defined() || (weight->numel() == count &&
                                                  weight->scalar_type() == self.scalar_type());
  const bool fits_bins = std::all_of(bins.begin(), bins.end(),
                                     [&](const Tensor& each) { return are_edges(each, self); });
  if (!detail::any_batched(x, weights, detail::unpack(level, bins)) || is_large(self) ||
      !is_counted || !fits_weight || !fits_bins) {
    return std::nullopt;
  }
  return Points{
      ensure_batched(x, size).reshape({size, count, coordinates}),
      weights.defined() ? ensure_batched(weights, size).reshape({size, count}) : Tensor()};
}

// Every element of `self` is a point.
std::optional<Points> elements_of(const LevelPtr& level, const Tensor& self,
                                  const OptionalTensor& weight, at::TensorList bins) {
  return points_of(level, self, weight, 1, bins);
}

// Every row of `self` is.
std::optional<Points> rows_of(const LevelPtr& level, const Tensor& self,
                              const OptionalTensor& weight, size_t coordinates,
                              at::TensorList bins) {
  const bool are_rows = self.dim() >= 2 && coordinates > 0 &&
                        self.size(-1) == static_cast<int64_t>(coordinates) &&
                        (!weight.has_value() || !weight->defined() ||
                         weight->sizes() == self.sizes().slice(0, self.dim() - 1));
  return are_rows ? points_of(level, self, weight, self.size(-1), bins) : std::nullopt;
}

// [B, the bins of each coordinate]
Tensor histogram_between(const Points& points, const std::vector<Edges>& edges, bool density) {
  Tensor is_inside;
  Tensor bins;
  std::vector<int64_t> shape{points.values.size(0)};
  int64_t size = 1;
  for (const Edges& each : edges) {
    const int64_t count = each.bin_count();
    const Tensor values = points.values.select(2, static_cast<int64_t>(shape.size()) - 1);
    const Tensor here = close_last(
        each.are_equidistant ? search_nearby(values, each) : search(values, each), count);
    const Tensor inside = is_within(values, each.limits());
    is_inside = is_inside.defined() ? is_inside.logical_and(inside) : inside;
    bins = bins.defined() ? bins.mul(count).add(here) : here;
    shape.push_back(count);
    size *= count;
  }
  Tensor sums = sum_by_bin(bins, is_inside, points.weights, size, points.values.scalar_type());
  if (!density) {
    return sums.view(shape);
  }
  sums = sums.div(sums.sum(1, true)).view(shape);
  for (size_t i = 0; i < edges.size(); ++i) {
    std::vector<int64_t> along(shape.size(), 1);
    along[0] = edges[i].values.is_batched ? shape[0] : 1;
    along[i + 1] = shape[i + 1];
    sums = sums.div(edges[i].values.value.diff().view(along));
  }
  return sums;
}

// Edges of `count` bins of equal width from `low` to `high`, for all examples of `values`.
Edges edges_within(double low, double high, int64_t count, const Tensor& values) {
  const double margin = low == high ? 0.5 : 0;
  const Tensor shared =
      ops::linspace::call(low - margin, high + margin, count + 1, values.scalar_type(),
                          std::nullopt, values.device(), std::nullopt);
  return {{shared, false}, /*are_equidistant=*/true};
}

// The same between the extremes of the values [B, n] of each example. One call for each: how
// linspace rounds depends on what PyTorch was compiled for, and on which side of an edge a value
// lies depends on that.
Edges edges_of_examples(const Tensor& values, int64_t count) {
  const Range range = widen_empty(extremes(values, "torch.histogram"), 0.5);
  std::vector<Tensor> each;
  for (int64_t b = 0; b < values.size(0); ++b) {
    each.push_back(ops::linspace_Tensor_Tensor::call(
        range.low.select(0, b), range.high.select(0, b), count + 1, values.scalar_type(),
        std::nullopt, values.device(), std::nullopt));
  }
  const Tensor own = each.empty() ? values.new_empty({0, count + 1}) : ops::stack::call(each, 0);
  return {{own, true}, /*are_equidistant=*/true};
}

// Edges of `counts` bins for each coordinate. None if limits that are given make no sense.
std::optional<std::vector<Edges>> edges_of(const Tensor& values, at::IntArrayRef counts,
                                           Limits limits) {
  const bool have_limits = limits.has_value();
  if (have_limits && limits->size() != 2 * counts.size()) {
    return std::nullopt;
  }
  std::vector<Edges> edges;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double low = have_limits ? (*limits)[2 * i] : 0;
    const double high = have_limits ? (*limits)[2 * i + 1] : 1;
    if (counts[i] <= 0 || !is_valid(low, high)) {
      return std::nullopt;
    }
    edges.push_back(have_limits || values.size(1) == 0
                        ? edges_within(low, high, counts[i], values)
                        : edges_of_examples(values.select(2, static_cast<int64_t>(i)), counts[i]));
  }
  return edges;
}

std::tuple<Tensor, Tensor> histogram(const LevelPtr& level, const Tensor& self, int64_t bins,
                                     Limits range, const OptionalTensor& weight, bool density) {
  std::optional<std::vector<Edges>> edges;
  const auto points = elements_of(level, self, weight, {});
  if (points) {
    edges = edges_of(points->values, bins, range);
  }
  if (!edges) {
    return by_loop<ops::histogram_bin_ct>(self, bins, range, weight, density);
  }
  return {make_batched(level, {histogram_between(*points, *edges, density), true}),
          make_batched(level, edges->front().values)};
}

std::tuple<Tensor, Tensor> histogram_between_tensor(const LevelPtr& level, const Tensor& self,
                                                    const Tensor& bins,
                                                    const OptionalTensor& weight, bool density) {
  const auto points = elements_of(level, self, weight, bins);
  if (!points) {
    return by_loop<ops::histogram_bins_tensor>(self, bins, weight, density);
  }
  const Batched edges = unwrap_batched(level, bins);
  return {make_batched(level, {histogram_between(*points, {{edges}}, density), true}),
          make_batched(level, {edges.value.clone(), edges.is_batched})};
}

// --- of several coordinates ----------------------------------------------------------------------

std::vector<Tensor> histogramdd_edges(const LevelPtr& level, const Tensor& self,
                                      at::IntArrayRef bins, Limits range,
                                      const OptionalTensor& weight, bool density) {
  std::optional<std::vector<Edges>> edges;
  if (const auto points = rows_of(level, self, weight, bins.size(), {})) {
    edges = edges_of(points->values, bins, range);
  }
  if (!edges) {
    return by_loop<ops::_histogramdd_bin_edges>(self, bins, range, weight, density);
  }
  std::vector<Tensor> packed;
  for (const Edges& each : *edges) {
    packed.push_back(make_batched(level, each.values));
  }
  return packed;
}

Tensor histogramdd(const LevelPtr& level, const Tensor& self, at::IntArrayRef bins, Limits range,
                   const OptionalTensor& weight, bool density) {
  std::optional<std::vector<Edges>> edges;
  const auto points = rows_of(level, self, weight, bins.size(), {});
  if (points) {
    edges = edges_of(points->values, bins, range);
  }
  if (!edges) {
    return by_loop<ops::_histogramdd_from_bin_cts>(self, bins, range, weight, density);
  }
  return make_batched(level, {histogram_between(*points, *edges, density), true});
}

Tensor histogramdd_between_tensors(const LevelPtr& level, const Tensor& self, at::TensorList bins,
                                   const OptionalTensor& weight, bool density) {
  const auto points = rows_of(level, self, weight, bins.size(), bins);
  if (!points) {
    return by_loop<ops::_histogramdd_from_bin_tensors>(self, bins, weight, density);
  }
  std::vector<Edges> edges;
  for (const Tensor& each : bins) {
    edges.push_back({unwrap_batched(level, each)});
  }
  return make_batched(level, {histogram_between(*points, edges, density), true});
}

}  // namespace

FUNCTX_RULES(histograms) {
  level_rule<ops::histc>(histc);
  level_rule<ops::histogram_bin_ct>(histogram);
  level_rule<ops::histogram_bins_tensor>(histogram_between_tensor);
  level_rule<ops::_histogramdd_bin_edges>(histogramdd_edges);
  level_rule<ops::_histogramdd_from_bin_cts>(histogramdd);
  level_rule<ops::_histogramdd_from_bin_tensors>(histogramdd_between_tensors);
  // What the rules leave over.
  boxed_batching_rule({"aten::histc", "aten::histogram.bin_ct", "aten::histogram.bins_tensor",
                       "aten::_histogramdd_bin_edges", "aten::_histogramdd_from_bin_cts",
                       "aten::_histogramdd_from_bin_tensors"},
                      loop_silently);
}

}  // namespace functx
