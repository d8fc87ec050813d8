#include "forward_ad/inplace.h"

#include "forward_ad/conform.h"

namespace functx {
namespace {

void write(const char* name, const LevelPtr& level, const Tensor& self, const Tensor& tangent,
           bool is_fresh) {
  check_can_hold_tangent(name, level, self, tangent.defined());
  // What is cast to integers has lost its tangent.
  if (!is_differentiable(self)) {
    return;
  }
  if (auto* wrapper = at_level<DualTensor>(self, *level)) {
    wrapper->write_tangent(tangent, is_fresh);
  }
}

}  // namespace

void check_can_hold_tangent(const char* name, const LevelPtr& level, const Tensor& self,
                            bool has_tangent) {
  TORCH_CHECK(
      !has_tangent || !is_differentiable(self) || at_level<DualTensor>(self, *level) != nullptr,
      "functx.jvp: ", name,
      " would mutate a captured Tensor, or one computed from captured ones only: it writes a value "
      "that depends on the input into a tensor that does not belong to this transform (level ",
      level->id,
      "), so its tangent would be lost. Pass it to the transform as one of the primals, use the "
      "out-of-place operator, or write into a clone or into a tensor that a factory (torch.zeros, "
      "torch.empty...) makes inside the function.");
}

void write_tangent(const char* name, const LevelPtr& level, const Tensor& self,
                   const Tensor& tangent) {
  write(name, level, self, tangent, /*is_fresh=*/false);
}

void write_tangent_of(const char* name, const LevelPtr& level, const Tensor& self,
                      const Tensor& result) {
  auto& dual = *at_level<DualTensor>(result, *level);
  write(name, level, self, dual.tangent(), dual.owns_tangent());
}

}  // namespace functx
