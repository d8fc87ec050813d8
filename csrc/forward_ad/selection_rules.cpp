// Operators that say which entries they chose: the tangent is gathered where they did.
#include "forward_ad/families.h"

namespace functx {
namespace {

Tensor gather_along(const Tensor& tangent, int64_t dim, const Tensor& indices) {
  return ops::gather::call(tangent, dim, indices, false);
}

// The chosen dim was reduced away unless `keepdim`.
Tensor gather_reduced(const Tensor& tangent, int64_t dim, const Tensor& indices, bool keepdim) {
  return keepdim || tangent.dim() == 0
             ? gather_along(tangent, dim, indices)
             : gather_along(tangent, dim, indices.unsqueeze(dim)).squeeze(dim);
}

using Selection = std::tuple<Dual, Tensor>;

Selection select(const Dual& self, std::tuple<Tensor, Tensor> selected, int64_t dim) {
  auto [values, indices] = std::move(selected);
  Tensor tangent = gather_along(self.tangent, dim, indices);
  return {Dual{std::move(values), std::move(tangent)}, std::move(indices)};
}

template <class Op>
Selection reduce(const Dual& self, int64_t dim, bool keepdim) {
  auto [values, indices] = Op::call(self.primal, dim, keepdim);
  Tensor tangent = gather_reduced(self.tangent, dim, indices, keepdim);
  return {Dual{std::move(values), std::move(tangent)}, std::move(indices)};
}

Selection kthvalue(const Dual& self, const c10::SymInt& k, int64_t dim, bool keepdim) {
  auto [values, indices] = ops::kthvalue::call(self.primal, k, dim, keepdim);
  Tensor tangent = gather_reduced(self.tangent, dim, indices, keepdim);
  return {Dual{std::move(values), std::move(tangent)}, std::move(indices)};
}

Selection sort(const Dual& self, int64_t dim, bool descending) {
  return select(self, ops::sort::call(self.primal, dim, descending), dim);
}

Selection sort_stable(const Dual& self, std::optional<bool> stable, int64_t dim, bool descending) {
  return select(self, ops::sort_stable::call(self.primal, stable, dim, descending), dim);
}

Selection topk(const Dual& self, const c10::SymInt& k, int64_t dim, bool largest, bool sorted) {
  return select(self, ops::topk::call(self.primal, k, dim, largest, sorted), dim);
}

template <class Op>
Selection running(const Dual& self, int64_t dim) {
  return select(self, Op::call(self.primal, dim), dim);
}

// Indices of max pooling count through the last `rank` dims of the input.
template <class Op, int64_t rank, class... Args>
Selection pool(const Dual& self, Args... args) {
  auto [values, indices] = Op::call(self.primal, args...);
  Tensor tangent = gather_along(self.tangent.flatten(-rank), -1, indices.flatten(-rank))
                       .view_symint(indices.sym_sizes());
  return {Dual{std::move(values), std::move(tangent)}, std::move(indices)};
}

using Ints = at::IntArrayRef;

// A composite operator, but one that reads memory by itself where it sees no gradient.
Dual max_pool1d(const Dual& self, Ints kernel, Ints stride, Ints padding, Ints dilation,
                bool ceil_mode) {
  auto [values, indices] =
      ops::max_pool1d_with_indices::call(self.primal, kernel, stride, padding, dilation, ceil_mode);
  Tensor tangent = gather_along(self.tangent, -1, indices);
  return {std::move(values), std::move(tangent)};
}

}  // namespace

FUNCTX_RULES(jvp_selection) {
  dual_rule<ops::max_dim, reduce<ops::max_dim>>();
  dual_rule<ops::min_dim, reduce<ops::min_dim>>();
  dual_rule<ops::median_dim, reduce<ops::median_dim>>();
  dual_rule<ops::nanmedian_dim, reduce<ops::nanmedian_dim>>();
  dual_rule<ops::mode, reduce<ops::mode>>();
  dual_rule<ops::kthvalue, kthvalue>();
  dual_rule<ops::sort, sort>();
  dual_rule<ops::sort_stable, sort_stable>();
  dual_rule<ops::topk, topk>();
  dual_rule<ops::cummax, running<ops::cummax>>();
  dual_rule<ops::cummin, running<ops::cummin>>();
}

FUNCTX_RULES(jvp_max_pooling) {
  dual_rule<ops::max_pool2d_with_indices,
            pool<ops::max_pool2d_with_indices, 2, Ints, Ints, Ints, Ints, bool>>();
  dual_rule<ops::max_pool3d_with_indices,
            pool<ops::max_pool3d_with_indices, 3, Ints, Ints, Ints, Ints, bool>>();
  dual_rule<ops::max_pool1d, max_pool1d>();
  dual_rule<ops::adaptive_max_pool2d, pool<ops::adaptive_max_pool2d, 2, Ints>>();
  dual_rule<ops::adaptive_max_pool3d, pool<ops::adaptive_max_pool3d, 3, Ints>>();
  linear_in_first<ops::max_pool2d_with_indices_backward, ops::max_pool3d_with_indices_backward,
                  ops::adaptive_max_pool2d_backward, ops::adaptive_max_pool3d_backward,
                  ops::max_unpool2d, ops::max_unpool3d>();
}

}  // namespace functx
