// The gradients of views, and the operators that write into a copy through a view.
#include "batching/dims.h"
#include "batching/rule.h"

namespace functx {
namespace {

// `shape` is the logical shape of what has been looked at.
template <class Op, class... Rest>
Batched backward_at_dim(const Batched& grad, c10::SymIntArrayRef shape, int64_t dim,
                        const Rest&... rest) {
  const auto rank = static_cast<int64_t>(shape.size());
  if (grad.is_batched && rank == 0) {
    // A scalar example, which can be unfolded only: it borrows a dimension.
    const c10::SymDimVector column{grad.value.sym_size(0), c10::SymInt(1)};
    return {Op::call(grad.value.unsqueeze(1), column, 1, rest...).squeeze(1), true};
  }
  return {Op::call(grad.value, physical_size(grad, shape), physical_dim(dim, rank, grad.is_batched),
                   rest...),
          grad.is_batched};
}

Batched diagonal_backward(const Batched& grad, c10::SymIntArrayRef shape, int64_t offset,
                          int64_t dim1, int64_t dim2) {
  const auto rank = static_cast<int64_t>(shape.size());
  return {ops::diagonal_backward::call(grad.value, physical_size(grad, shape), offset,
                                       physical_dim(dim1, rank, grad.is_batched),
                                       physical_dim(dim2, rank, grad.is_batched)),
          grad.is_batched};
}

template <class Op, class... Rest>
Batched scatter_at_dim(const Batched& self, const Batched& src, int64_t dim, const Rest&... rest) {
  const auto size = common_batch_size({&self, &src});
  if (!size) {
    return {Op::call(self.value, src.value, dim, rest...), false};
  }
  return {Op::call(ensure_batched(self, *size).contiguous(), ensure_batched(src, *size),
                   physical_dim(dim, self.logical_dim(), true), rest...),
          true};
}

Batched diagonal_scatter(const Batched& self, const Batched& src, int64_t offset, int64_t dim1,
                         int64_t dim2) {
  const auto size = common_batch_size({&self, &src});
  if (!size) {
    return {ops::diagonal_scatter::call(self.value, src.value, offset, dim1, dim2), false};
  }
  const int64_t rank = self.logical_dim();
  return {ops::diagonal_scatter::call(
              ensure_batched(self, *size).contiguous(), ensure_batched(src, *size), offset,
              physical_dim(dim1, rank, true), physical_dim(dim2, rank, true)),
          true};
}

}  // namespace

FUNCTX_RULES(view_gradients) {
  using Int = c10::SymInt;
  using MaybeInt = std::optional<c10::SymInt>;
  batching_rule<ops::select_backward, backward_at_dim<ops::select_backward, Int>>();
  batching_rule<ops::slice_backward, backward_at_dim<ops::slice_backward, Int, Int, Int>>();
  batching_rule<ops::unfold_backward, backward_at_dim<ops::unfold_backward, int64_t, int64_t>>();
  batching_rule<ops::diagonal_backward, diagonal_backward>();
  batching_rule<ops::select_scatter, scatter_at_dim<ops::select_scatter, Int>>();
  batching_rule<ops::slice_scatter, scatter_at_dim<ops::slice_scatter, MaybeInt, MaybeInt, Int>>();
  batching_rule<ops::diagonal_scatter, diagonal_scatter>();
}

}  // namespace functx
