// Distances between rows, and the cross product.
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
  batching_rule<ops::linalg_cross, cross>();
}

}  // namespace functx
