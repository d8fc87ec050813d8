#include "core/recording.h"

#include <torch/csrc/autograd/variable.h>

namespace functx {
namespace {

bool is_unrecorded_view(const Tensor& tensor) {
  const Wrapper* wrapper = as_wrapper(tensor);
  return wrapper != nullptr && wrapper->is_unrecorded_view();
}

}  // namespace

void check_view_is_recorded(const Tensor& written) {
  // With a native tangent it is a dual that our own fallback has made for one operator.
  if (written._fw_grad(0).defined()) {
    return;
  }
  const auto* meta = torch::autograd::impl::get_view_autograd_meta(written);
  const bool is_recorded = meta == nullptr || !meta->has_bw_view() ||
                           !is_unrecorded_view(meta->get_backward_view().base_);
  TORCH_CHECK(!is_unrecorded_view(written) && is_recorded, "functx.",
              name_of(as_wrapper(written)->level()->transform),
              ": a value that autograd tracks is written into a view that was taken when nothing "
              "was tracked here, so that the tensor it is a view of would miss the gradient. Take "
              "the view after requires_grad_() and the first use of what is tracked, or clone it.");
}

}  // namespace functx
