// Pooling and its inverses: every item of a minibatch by itself.
#include "batching/fold.h"

namespace functx {
namespace {

// One random pair or triple per item and channel, [N, C, 2]; N is 1 for an item without N.
template <class Op, int64_t item_rank>
std::tuple<Tensor, Tensor> fractional_max_pool(const LevelPtr& level, const Tensor& self,
                                               at::IntArrayRef kernel_size,
                                               at::IntArrayRef output_size,
                                               const Tensor& random_samples) {
  const Batched x = unwrap_batched(level, self);
  const Batched samples = unwrap_batched(level, random_samples);
  const bool is_batched = x.is_batched || samples.is_batched;
  const bool is_item = self.dim() == item_rank;
  if (is_batched && ((!is_item && self.dim() != item_rank + 1) || random_samples.dim() != 3)) {
    return by_loop<Op>(self, kernel_size, output_size, random_samples);
  }
  const int64_t size = level->batch_size;
  const auto fold = [&](const Batched& b, bool has_items) {
    return !is_batched ? b.value : has_items ? fold_items(b, size) : ensure_batched(b, size);
  };
  auto [values, indices] =
      Op::call(fold(x, !is_item), kernel_size, output_size, fold(samples, true));
  const auto unfold = [&](const Tensor& folded) {
    return make_batched(level,
                        {is_batched && !is_item ? unfold_items(folded, size) : folded, is_batched});
  };
  return {unfold(values), unfold(indices)};
}

// The composite operator reads the data of a CPU tensor that needs no gradient directly. The one
// that finds indices too does not.
Tensor max_pool1d(c10::DispatchKeySet keys, const Tensor& self, at::IntArrayRef kernel_size,
                  at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                  bool ceil_mode) {
  const Wrapper* wrapper = as_wrapper(self);
  if (wrapper == nullptr) {
    return ops::max_pool1d::redispatch(keys.remove(kFrontKey), self, kernel_size, stride, padding,
                                       dilation, ceil_mode);
  }
  return std::get<0>(
      ops::max_pool1d_with_indices::call(self, kernel_size, stride, padding, dilation, ceil_mode));
}

}  // namespace

FUNCTX_RULES(pooling_in_1d) {
  const c10::OperatorName name(ops::max_pool1d::name, ops::max_pool1d::overload_name);
  if (claim(name, Coverage::Decomposition)) {
    register_kernel(name, kFrontKey,
                    c10::KernelFunction::makeFromUnboxedFunction(TORCH_FN(max_pool1d)));
  }
}

FUNCTX_RULES(pooling) {
  fold_items_or_one_of_rank<
      3, ops::avg_pool2d, ops::avg_pool2d_backward, ops::_adaptive_avg_pool2d,
      ops::_adaptive_avg_pool2d_backward, ops::max_pool2d_with_indices,
      ops::max_pool2d_with_indices_backward, ops::adaptive_max_pool2d,
      ops::adaptive_max_pool2d_backward, ops::max_unpool2d, ops::fractional_max_pool2d_backward,
      ops::max_pool2d_backward, ops::mkldnn_max_pool2d, ops::mkldnn_max_pool2d_backward,
      ops::mkldnn_adaptive_avg_pool2d, ops::mkldnn_adaptive_avg_pool2d_backward>();
  fold_items_or_one_of_rank<4, ops::avg_pool3d, ops::avg_pool3d_backward, ops::_adaptive_avg_pool3d,
                            ops::_adaptive_avg_pool3d_backward, ops::max_pool3d_with_indices,
                            ops::max_pool3d_with_indices_backward, ops::adaptive_max_pool3d,
                            ops::adaptive_max_pool3d_backward, ops::max_unpool3d,
                            ops::fractional_max_pool3d_backward, ops::mkldnn_max_pool3d,
                            ops::mkldnn_max_pool3d_backward>();
}

FUNCTX_RULES(fractional_pooling) {
  level_rule<ops::fractional_max_pool2d>(fractional_max_pool<ops::fractional_max_pool2d, 3>);
  level_rule<ops::fractional_max_pool3d>(fractional_max_pool<ops::fractional_max_pool3d, 4>);
}

}  // namespace functx
