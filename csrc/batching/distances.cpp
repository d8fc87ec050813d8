// Distances between rows, and the cross product.
#include <ATen/ops/triu_indices.h>

#include "batching/boxed_rules.h"
#include "batching/by_loop.h"
#include "batching/dims.h"
#include "batching/rule.h"

namespace functx {
namespace {

// Sets of rows [.., n, d], whose other dimensions broadcast.
struct Rows {
  Rows(const Batched& x1, const Batched& x2, int64_t size) {
    const int64_t rank = std::max(x1.logical_dim(), x2.logical_dim());
    first = align_rank({ensure_batched(x1, size), true}, rank);
    second = align_rank({ensure_batched(x2, size), true}, rank);
  }
  Tensor first;
  Tensor second;
};

template <class Op, class... Rest>
Batched distance(const Batched& x1, const Batched& x2, const Rest&... rest) {
  TORCH_CHECK(x1.logical_dim() >= 2 && x2.logical_dim() >= 2,
              "cdist only supports at least 2D tensors, got ", x1.logical_dim(), "D and ",
              x2.logical_dim(), "D");
  const auto size = common_batch_size({&x1, &x2});
  if (!size) {
    return {Op::call(x1.value, x2.value, rest...), false};
  }
  const Rows rows(x1, x2, *size);
  return {Op::call(rows.first, rows.second, rest...), true};
}

Batched cdist_backward(const Batched& grad, const Batched& x1, const Batched& x2, double p,
                       const Batched& distances) {
  const auto size = common_batch_size({&grad, &x1, &x2, &distances});
  if (!size) {
    return {ops::_cdist_backward::call(grad.value, x1.value, x2.value, p, distances.value), false};
  }
  const Rows rows(x1, x2, *size);
  return {ops::_cdist_backward::call(ensure_batched(grad, *size).contiguous(),
                                     rows.first.contiguous(), rows.second.contiguous(), p,
                                     ensure_batched(distances, *size).contiguous()),
          true};
}

// PyTorch's kernel for all pairs of a few rows is not worth a call for each example: a matrix of
// distances has every pair twice, but is made for the whole batch at once.
bool are_few(const Tensor& rows) {
  constexpr int64_t few = 1 << 13;
  return rows.size(1) * rows.size(1) * rows.size(2) <= few;
}

// Where the upper triangle is in a square matrix laid out in a row: the distances of all pairs.
Tensor upper_triangle(const Tensor& rows) {
  const int64_t count = rows.size(1);
  const Tensor pairs = at::triu_indices(count, count, 1, rows.options().dtype(at::kLong));
  return pairs.select(0, 0).mul(count).add(pairs.select(0, 1));
}

Tensor pdist_forward(const LevelPtr& level, const Tensor& self, double p) {
  TORCH_CHECK(self.dim() == 2, "pdist only supports 2D tensors, got: ", self.dim(), "D");
  using Op = ops::_pdist_forward;
  const auto [rows, is_batched] = unwrap_batched(level, self);
  if (!is_batched) {
    return make_batched(level, {Op::call(rows, p), false});
  }
  if (!are_few(rows)) {
    return by_loop<Op>(detail::without_tape(level, self).contiguous(), p);
  }
  constexpr int64_t without_product = 2;
  const Tensor all = ops::_cdist_forward::call(rows, rows, p, without_product);
  return make_batched(level, {all.flatten(1).index_select(1, upper_triangle(rows)), true});
}

Tensor pdist_backward(const LevelPtr& level, const Tensor& grad, const Tensor& self, double p,
                      const Tensor& distances) {
  using Op = ops::_pdist_backward;
  const Batched grads = unwrap_batched(level, grad);
  const Batched points = unwrap_batched(level, self);
  const Batched lengths = unwrap_batched(level, distances);
  if (!detail::any_batched(grads, points, lengths)) {
    return make_batched(level, {Op::call(grads.value, points.value, p, lengths.value), false});
  }
  const int64_t size = level->batch_size;
  const Tensor rows = ensure_batched(points, size).contiguous();
  if (!are_few(rows)) {
    const auto compact = [&](const Tensor& x) {
      return detail::without_tape(level, x).contiguous();
    };
    return by_loop<Op>(compact(grad), compact(self), p, compact(distances));
  }
  const Tensor places = upper_triangle(rows);
  const int64_t count = rows.size(1);
  const auto matrix = [&](const Batched& pairs) {
    const Tensor each = ensure_batched(pairs, size);
    const Tensor upper = each.new_zeros({size, count * count})
                             .index_copy(1, places, each)
                             .view({size, count, count});
    return upper.add(upper.transpose(1, 2)).contiguous();
  };
  return make_batched(
      level, {ops::_cdist_backward::call(matrix(grads), rows, rows, p, matrix(lengths)), true});
}

Batched cross(const Batched& self, const Batched& other, int64_t dim) {
  TORCH_CHECK(self.logical_dim() == other.logical_dim(),
              "linalg.cross: inputs must have the same number of dimensions.");
  const auto size = common_batch_size({&self, &other});
  if (!size) {
    return {ops::linalg_cross::call(self.value, other.value, dim), false};
  }
  return {ops::linalg_cross::call(ensure_batched(self, *size), ensure_batched(other, *size),
                                  physical_dim(dim, self.logical_dim(), true)),
          true};
}

}  // namespace

FUNCTX_RULES(distances) {
  batching_rule<ops::_cdist_forward,
                distance<ops::_cdist_forward, double, std::optional<int64_t>>>();
  batching_rule<ops::_euclidean_dist, distance<ops::_euclidean_dist>>();
  batching_rule<ops::_cdist_backward, cdist_backward>();
  level_rule<ops::_pdist_forward>(pdist_forward);
  level_rule<ops::_pdist_backward>(pdist_backward);
  // Many rows: the kernel then is worth a call for each example.
  boxed_batching_rule({"aten::_pdist_forward", "aten::_pdist_backward"}, loop_silently);
  batching_rule<ops::linalg_cross, cross>();
}

}  // namespace functx
