// Padding, and rearranging between channels and space.
#include "batching/fold.h"
#include "batching/pointwise.h"

namespace functx {
namespace {

// Operators on the last dimensions of a tensor with any number of others in front.
template <class Op, int64_t lowest_rank, class... Rest>
Batched any_leading_dims(const Batched& self, const Rest&... rest) {
  TORCH_CHECK(self.logical_dim() >= lowest_rank, Op::name, ": expected a tensor with at least ",
              lowest_rank, " dimensions, but got ", self.logical_dim());
  return {Op::call(self.value, rest...), self.is_batched};
}

Batched channel_shuffle(const Batched& self, const c10::SymInt& groups) {
  TORCH_CHECK(self.logical_dim() > 2,
              "channel_shuffle: expected a tensor with more than 2 "
              "dimensions, but got ",
              self.logical_dim());
  if (!self.is_batched) {
    return {ops::channel_shuffle::call(self.value, groups), false};
  }
  const Tensor shuffled = ops::channel_shuffle::call(self.value.flatten(0, 1), groups);
  return {unfold_items(shuffled, batch_size(self)), true};
}

}  // namespace

FUNCTX_RULES(padding) {
  fold_items_or_one_of_rank<2, ops::reflection_pad1d, ops::reflection_pad1d_backward,
                            ops::replication_pad1d, ops::replication_pad1d_backward, ops::col2im>();
  fold_items_or_one_of_rank<3, ops::reflection_pad2d, ops::reflection_pad2d_backward,
                            ops::replication_pad2d, ops::replication_pad2d_backward, ops::im2col>();
  fold_items_or_one_of_rank<4, ops::reflection_pad3d, ops::reflection_pad3d_backward,
                            ops::replication_pad3d, ops::replication_pad3d_backward>();
}

FUNCTX_RULES(channels_and_space) {
  batching_rule<ops::pixel_shuffle, any_leading_dims<ops::pixel_shuffle, 3, int64_t>>();
  batching_rule<ops::pixel_unshuffle, any_leading_dims<ops::pixel_unshuffle, 3, int64_t>>();
  batching_rule<ops::channel_shuffle, channel_shuffle>();
}

}  // namespace functx
