// By PyTorch's own forward AD, one stratum down. Primals and tangents become transient native
// duals, the operator runs on them, and its tangent is read back. That reaches every formula
// PyTorch has, and nests, because the native dual may itself sit on a wrapper.
#include <ATen/ops/_make_dual.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/forward_grad.h>

#include <mutex>

#include "core/functional_variant.h"
#include "core/torch_func.h"
#include "forward_ad/boxed_duals.h"
#include "forward_ad/fallback.h"
#include "forward_ad/inplace.h"
#include "reverse_ad/lift.h"

namespace functx {
namespace {

using torch::autograd::ForwardADLevel;

// PyTorch has a single native forward level for the whole process: shared by all threads that are
// in the fallback, and with a user who has entered torch.autograd.forward_ad.dual_level().
class NativeLevel {
 public:
  NativeLevel() {
    const std::lock_guard<std::mutex> lock(mutex);
    if (users++ == 0) {
      is_ours = ForwardADLevel::try_get_by_idx(0) == nullptr;
      if (is_ours) {
        ForwardADLevel::get_next_idx();
      }
    }
  }
  ~NativeLevel() {
    const std::lock_guard<std::mutex> lock(mutex);
    if (--users == 0 && is_ours) {
      ForwardADLevel::release_idx(0);
    }
  }
  NativeLevel(const NativeLevel&) = delete;
  NativeLevel& operator=(const NativeLevel&) = delete;

 private:
  static inline std::mutex mutex;
  static inline int64_t users = 0;
  static inline bool is_ours = false;
};

// The values of torch.func's wrappers have no tape of their own that we could use: a level of duals
// without tangent gives them one.
LevelPtr identity_stratum() {
  auto level = c10::make_intrusive<Level>(Transform::Jvp, 0, Randomness::Error);
  level->is_identity = true;
  return level;
}

// The innermost level among the primals and tangents: a tape there sees all of them.
LevelPtr stratum_of(const c10::OperatorHandle& op, const LevelPtr& level,
                    const torch::jit::Stack& arguments) {
  // What an operator draws may be batched though none of its arguments is.
  LevelPtr stratum =
      op.hasTag(at::Tag::nondeterministic_seeded) ? innermost_wrapper_level() : LevelPtr();
  visit_tensors(arguments, [&](const Tensor& tensor) {
    const Dual dual = unwrap_dual(level, tensor);
    stratum = innermost_of({dual.primal, dual.tangent}, std::move(stratum));
  });
  return stratum == nullptr && torch_func_depth() > 0 ? identity_stratum() : stratum;
}

Tensor native_dual(const Dual& dual, const LevelPtr& stratum, bool is_written) {
  if (!dual.defined()) {
    return {};
  }
  const Tensor primal = lift(dual.primal, stratum);
  if (!dual.has_tangent() && !(is_written && can_have_tangent(primal))) {
    return primal;
  }
  TORCH_CHECK(
      !primal._fw_grad(0).defined(),
      "functx.jvp: an operator without a rule of its own met a tensor that has a tangent of "
      "torch.autograd.forward_ad. Unpack it first, or nest functx.jvp instead.");
  if (is_written) {
    // One without tangent needs one too, or it would keep the native tangent; and nobody else may
    // see what is written to it.
    return at::_make_dual(primal,
                          dual.has_tangent() ? dual.tangent.clone() : at::zeros_like(primal), 0);
  }
  return at::_make_dual(primal, dual.tangent, 0);
}

Tensor outside_identity(const Tensor& result) {
  const LevelPtr level = level_of(result);
  return level != nullptr && level->is_identity ? unwrap_dual(level, result).primal : result;
}

Dual from_native(const Tensor& result) {
  if (!result.defined()) {
    return {};
  }
  const Tensor tangent = result._fw_grad(0);
  return tangent.defined()
             ? Dual{outside_identity(result._fw_primal(0)), outside_identity(tangent), false}
             : Dual{outside_identity(result), {}};
}

}  // namespace

void differentiate_natively(const c10::OperatorHandle& op, const LevelPtr& level,
                            const torch::jit::Stack& arguments, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto& name = schema.name();
  const LevelPtr stratum = stratum_of(op, level, arguments);
  const NativeLevel native;
  const c10::AutoFwGradMode forward_grad(true);
  torch::jit::Stack values;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const bool written = is_written(schema.arguments()[i]);
    values.push_back(map_tensors(arguments[i], [&](const Tensor& tensor) {
      if (written) {
        check_can_hold_tangent(name.c_str(), level, tensor, true);
      }
      return native_dual(unwrap_dual(level, tensor), stratum, written);
    }));
  }
  const torch::jit::Stack inputs = values;
  op.callBoxed(&values);
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (is_written(schema.arguments()[i])) {
      write_results(schema, arguments[i], inputs[i], [&](const Tensor& dual, const Tensor& native) {
        write_tangent(name.c_str(), level, dual, native._fw_grad(0));
      });
    }
  }
  const Lenders lenders(level, arguments);
  push_results(
      schema, arguments, values,
      [&](const Tensor& result) { return make_dual(level, lenders.settle(from_native(result))); },
      stack);
}

}  // namespace functx
