// Factories: a value that is differentiated inside a transform may later be written into a new
// tensor. So under jvp it is a dual without tangent, and where a tape is on batched tensors, a
// batched tensor that is the same for every example.
#include <ATen/Operators.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>

#include "core/lift.h"
#include "core/operands.h"
#include "core/registry.h"

namespace functx {
namespace {

namespace ops = at::_ops;

// `made` at every such level inside the level it is of.
Tensor as_constant(Tensor made) {
  // Others are never differentiated, and serve as indices and masks.
  if (!c10::isFloatingType(made.scalar_type()) && !c10::isComplexType(made.scalar_type())) {
    return made;
  }
  const int64_t id = level_id_of(made);
  for (const LevelPtr& level : active_levels()) {
    if (level->id > id && level->wraps_new_tensors) {
      made = lift(made, level);
    }
  }
  return made;
}

// torch.tensor and indexing allocate, write to that memory, and call lift_fresh on it at the end.
// They keep dispatch modes of Python from seeing the first step.
bool fills_memory_itself() {
  return c10::impl::tls_is_dispatch_key_excluded(c10::DispatchKey::Python);
}

template <class Op, class Signature = typename Op::schema>
struct FactoryKernel;

template <class Op, class... Args>
struct FactoryKernel<Op, Tensor(Args...)> {
  static Tensor run(c10::DispatchKeySet keys, Args... args) {
    const auto levels = active_levels();
    const bool wraps = std::any_of(levels.begin(), levels.end(),
                                   [](const LevelPtr& level) { return level->wraps_new_tensors; });
    if (!wraps || fills_memory_itself()) {
      return Op::redispatch(keys & kBelowModeKeys, std::forward<Args>(args)...);
    }
    if (Operands(args...).top() != nullptr) {
      // Its rule calls the operator again, for the levels outside.
      return as_constant(Op::redispatch(keys & kBelowModeKeys, std::forward<Args>(args)...));
    }
    return as_constant(make(keys, std::forward<Args>(args)...));
  }

 private:
  // Factories are made of one another: none of the inner ones is to be wrapped.
  static Tensor make(c10::DispatchKeySet keys, Args... args) {
    const HideFrom inner;
    return Op::redispatch((keys & kBelowModeKeys).remove(kFrontKey), std::forward<Args>(args)...);
  }
};

template <class... Ops>
void factories() {
  (register_kernel(c10::OperatorName(Ops::name, Ops::overload_name), kModeKey,
                   c10::KernelFunction::makeFromUnboxedFunction(TORCH_FN(FactoryKernel<Ops>::run))),
   ...);
}

FUNCTX_RULES(factories) {
  factories<ops::zeros, ops::ones, ops::full, ops::empty_memory_format, ops::empty_strided,
            ops::empty_permuted, ops::eye, ops::eye_m, ops::scalar_tensor>();
  factories<ops::arange, ops::arange_start, ops::arange_start_step, ops::linspace, ops::logspace,
            ops::linspace_Tensor_Tensor, ops::linspace_Tensor_Scalar,
            ops::linspace_Scalar_Tensor>();
  factories<ops::zeros_like, ops::ones_like, ops::empty_like, ops::full_like>();
  factories<ops::new_zeros, ops::new_ones, ops::new_empty, ops::new_full, ops::new_empty_strided>();
  factories<ops::hann_window, ops::hann_window_periodic, ops::hamming_window,
            ops::hamming_window_periodic, ops::blackman_window, ops::blackman_window_periodic,
            ops::bartlett_window, ops::bartlett_window_periodic>();
  // Of a plain tensor: torch.tensor ends with lift_fresh.
  factories<ops::lift_fresh, ops::clone, ops::_to_copy>();
}

}  // namespace
}  // namespace functx
