// Operators that put the elements of one tensor in other places.
#include "batching/dims.h"
#include "batching/rule.h"

namespace functx {
namespace {

// The operator itself says best what it misses in an example of fewer than `min_rank` dimensions.
template <class Op, int64_t min_rank, class... Rest>
void check_rank(const Batched& self, const Rest&... rest) {
  if (self.logical_dim() < min_rank) {
    Tensor example = self.value.new_empty_symint(self.value.sym_sizes().slice(self.is_batched));
    Op::call(example, rest...);
  }
}

// Operators on the last dimensions, to which the batch is one more in front. The example has to
// have `min_rank` dimensions by itself.
template <class Op, int64_t min_rank, class... Rest>
Batched on_last_dims(const Batched& self, const Rest&... rest) {
  check_rank<Op, min_rank>(self, rest...);
  return {Op::call(self.value, rest...), self.is_batched};
}

template <class Op, class... Rest>
void on_last_dims_(const Batched& self, const Rest&... rest) {
  check_rank<Op, 2>(self, rest...);
  Tensor value = self.value;
  Op::call(value, rest...);
}

Batched flip(const Batched& self, at::IntArrayRef dims) {
  if (self.logical_dim() == 0) {
    for (const int64_t dim : dims) {
      c10::maybe_wrap_dim(dim, 0);
    }
    return {self.value.clone(), self.is_batched};
  }
  return {self.value.flip(physical_dims(self, dims)), self.is_batched};
}

Batched roll(const Batched& self, c10::SymIntArrayRef shifts, at::IntArrayRef dims) {
  if (!self.is_batched || !dims.empty()) {
    return {self.value.roll_symint(shifts, physical_dims(self, dims)), self.is_batched};
  }
  // Without dims, all elements are rolled as if in a row.
  if (self.logical_dim() == 0) {
    return {self.value.clone(), true};
  }
  return {self.value.flatten(1).roll_symint(shifts, 1).view_symint(self.value.sym_sizes()), true};
}

Batched rot90(const Batched& self, int64_t k, at::IntArrayRef dims) {
  return {self.value.rot90(k, physical_dims(self, dims)), self.is_batched};
}

Batched repeat(const Batched& self, c10::SymIntArrayRef repeats) {
  const auto rank = static_cast<int64_t>(repeats.size());
  TORCH_CHECK(rank >= self.logical_dim(),
              "Number of dimensions of repeat dims can not be smaller "
              "than number of dimensions of tensor");
  c10::SymDimVector physical(repeats.begin(), repeats.end());
  if (self.is_batched) {
    physical.insert(physical.begin(), c10::SymInt(1));
  }
  return {align_rank(self, rank).repeat_symint(physical), self.is_batched};
}

Batched constant_pad(const Batched& self, c10::SymIntArrayRef pad, const at::Scalar& value) {
  TORCH_CHECK(static_cast<int64_t>(pad.size()) <= 2 * self.logical_dim(),
              "Length of pad should be no more than twice the number of dimensions of the input. "
              "Pad length is ",
              pad.size(), " while the input has ", self.logical_dim(), " dimensions.");
  return {ops::constant_pad_nd::call(self.value, pad, value), self.is_batched};
}

Batched diag_embed(const Batched& self, int64_t offset, int64_t dim1, int64_t dim2) {
  TORCH_CHECK(self.logical_dim() > 0, "diag_embed: expected a tensor of at least 1 dimension");
  const int64_t rank = self.logical_dim() + 1;
  return {self.value.diag_embed(offset, physical_dim(dim1, rank, self.is_batched),
                                physical_dim(dim2, rank, self.is_batched)),
          self.is_batched};
}

Batched trace(const Batched& self) {
  if (!self.is_batched) {
    return {self.value.trace(), false};
  }
  TORCH_CHECK(self.logical_dim() == 2, "trace: expected a matrix, but got tensor with dim ",
              self.logical_dim());
  return {self.value.diagonal(0, 1, 2).sum(-1), true};
}

Batched renorm(const Batched& self, const at::Scalar& p, int64_t dim, const at::Scalar& maxnorm) {
  const int64_t along = c10::maybe_wrap_dim(dim, self.logical_dim());
  TORCH_CHECK(self.logical_dim() > 1, "renorm: input needs at least 2 dimensions, got ",
              self.logical_dim(), " dimensions");
  if (!self.is_batched) {
    return {self.value.renorm(p, along, maxnorm), false};
  }
  // The rows along dim are treated each by itself, so the batch only makes more of them.
  const Tensor rows = fold_batch_into(self.value, along);
  return {unfold_batch_from(rows.renorm(p, along, maxnorm), along, batch_size(self)), true};
}

void renorm_(const Batched& self, const at::Scalar& p, int64_t dim, const at::Scalar& maxnorm) {
  Tensor value = self.value;
  value.copy_(renorm(self, p, dim, maxnorm).value);
}

}  // namespace

FUNCTX_RULES(rearranging) {
  using Int = c10::SymInt;
  batching_rule<ops::tril, on_last_dims<ops::tril, 2, Int>>();
  batching_rule<ops::triu, on_last_dims<ops::triu, 2, Int>>();
  batching_rule<ops::tril_, on_last_dims_<ops::tril_, Int>>();
  batching_rule<ops::triu_, on_last_dims_<ops::triu_, Int>>();
  batching_rule<ops::view_as_real, on_last_dims<ops::view_as_real, 0>>();
  batching_rule<ops::view_as_complex, on_last_dims<ops::view_as_complex, 1>>();
  batching_rule<ops::flip, flip>();
  batching_rule<ops::roll, roll>();
  batching_rule<ops::rot90, rot90>();
  batching_rule<ops::repeat, repeat>();
  batching_rule<ops::constant_pad_nd, constant_pad>();
  batching_rule<ops::diag_embed, diag_embed>();
  batching_rule<ops::trace, trace>();
  batching_rule<ops::renorm, renorm>();
  batching_rule<ops::renorm_, renorm_>();
}

}  // namespace functx
