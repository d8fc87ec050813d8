// Distances between rows, and the cross product.
#include <ATen/ops/stack.h>
#include <ATen/ops/triu_indices.h>

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

template <class Call>
Tensor one_by_one(int64_t size, const Call& call) {
  std::vector<Tensor> results;
  for (int64_t b = 0; b < size; ++b) {
    results.push_back(call(b));
  }
  return at::stack(results);
}

void check_rows(const Batched& self) {
  TORCH_CHECK(self.logical_dim() == 2, "pdist only supports 2D tensors, got: ", self.logical_dim(),
              "D");
}

Batched pdist_forward(const Batched& self, double p) {
  check_rows(self);
  const Tensor& rows = self.value;
  if (!self.is_batched) {
    return {ops::_pdist_forward::call(rows, p), false};
  }
  if (!are_few(rows)) {
    return {one_by_one(batch_size(self),
                       [&](int64_t b) { return ops::_pdist_forward::call(rows.select(0, b), p); }),
            true};
  }
  constexpr int64_t without_product = 2;
  const Tensor all = ops::_cdist_forward::call(rows, rows, p, without_product);
  return {all.flatten(1).index_select(1, upper_triangle(rows)), true};
}

Batched pdist_backward(const Batched& grad, const Batched& self, double p,
                       const Batched& distances) {
  const auto size = common_batch_size({&grad, &self, &distances});
  if (!size) {
    return {ops::_pdist_backward::call(grad.value, self.value, p, distances.value), false};
  }
  const Tensor grads = ensure_batched(grad, *size);
  const Tensor rows = ensure_batched(self, *size).contiguous();
  const Tensor lengths = ensure_batched(distances, *size);
  if (!are_few(rows)) {
    return {one_by_one(*size,
                       [&](int64_t b) {
                         return ops::_pdist_backward::call(grads.select(0, b).contiguous(),
                                                           rows.select(0, b), p,
                                                           lengths.select(0, b).contiguous());
                       }),
            true};
  }
  const Tensor places = upper_triangle(rows);
  const int64_t count = rows.size(1);
  const auto matrix = [&](const Tensor& pairs) {
    const Tensor upper = pairs.new_zeros({*size, count * count})
                             .index_copy(1, places, pairs)
                             .view({*size, count, count});
    return upper.add(upper.transpose(1, 2)).contiguous();
  };
  return {ops::_cdist_backward::call(matrix(grads), rows, rows, p, matrix(lengths)), true};
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
  batching_rule<ops::_pdist_forward, pdist_forward>();
  batching_rule<ops::_pdist_backward, pdist_backward>();
  batching_rule<ops::linalg_cross, cross>();
}

}  // namespace functx
