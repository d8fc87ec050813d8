#include "core/tape_above.h"

#include <torch/csrc/autograd/variable.h>

#include <algorithm>

#include "core/alias.h"
#include "core/node_numbers.h"
#include "core/tracked.h"

namespace functx {
namespace {

void raise(const Tensor& tensor, uint64_t least) {
  if (const auto& node = tensor.grad_fn()) {
    raise_number(*node, least);
  }
}

}  // namespace

LevelPtr stratum_above(const Tensor& tensor) {
  const auto* meta = torch::autograd::impl::get_autograd_meta(tensor);
  if (meta == nullptr || (!meta->grad_fn_ && !meta->is_view_) || !tensor.requires_grad()) {
    return nullptr;
  }
  const auto& node = tensor.grad_fn();
  const int64_t own = level_id_of(tensor);
  const auto last = node ? static_cast<int64_t>(number_of(*node) / kNodesOfLevel) : 0;
  if (last <= own) {
    return nullptr;
  }
  const auto visible = active_levels();
  const auto found = std::find_if(visible.rbegin(), visible.rend(), [&](const LevelPtr& level) {
    return level->wraps() && level->id <= last;
  });
  return found != visible.rend() && (*found)->id > own ? *found : nullptr;
}

Tensor without_own_tape(const Tensor& tensor) {
  return as_wrapper(tensor) != nullptr ? alias_wrapper(tensor) : tensor.detach();
}

Tensor with_tape(const Tensor& tensor, const LevelPtr& stratum, Lifting lifting) {
  Tensor lifted = lifting(stratum, without_own_tape(tensor));
  torch::autograd::impl::set_gradient_edge(lifted, torch::autograd::impl::gradient_edge(tensor));
  return lifted;
}

void check_one_tape(const char* name, const Level& level, const Tensor& self,
                    c10::ArrayRef<Tensor> sources) {
  const bool below = (self.requires_grad() && !has_tape_above(self)) ||
                     std::any_of(sources.begin(), sources.end(), is_tracked_below);
  TORCH_CHECK(!below, "functx.", name_of(level.transform), ": ", name,
              " writes a value that is being differentiated, both inside ",
              name_of(level.transform),
              " and outside of it, into a tensor that was computed from "
              "captured ones only. It can't be on both tapes. Write into a clone of it, or into a "
              "tensor that a factory (torch.zeros, x.new_zeros...) makes inside the function.");
}

void note_tape_above(const Tensor& self, const Level& level) {
  raise(self, first_number(level));
  if (self.is_view()) {
    raise(Tensor(self._base()), first_number(level));
  }
}

}  // namespace functx
