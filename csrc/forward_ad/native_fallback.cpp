// The last tier of jvp: PyTorch's own forward AD, one stratum down. Primals and tangents become
// transient native duals, the operator runs on them, and its tangent is read back. That reaches
// every formula PyTorch has, and nests, because the native dual may itself sit on a wrapper.
#include <ATen/ops/_make_dual.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/forward_grad.h>

#include <mutex>

#include "core/boxed.h"
#include "core/registry.h"
#include "core/schema.h"
#include "core/torch_func.h"
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

void keep_inner(LevelPtr& inner, const Tensor& tensor) {
  const LevelPtr level = level_of(tensor);
  if (level != nullptr && (inner == nullptr || inner->id < level->id)) {
    inner = level;
  }
}

// The innermost level among the primals and tangents: a tape there sees all of them.
void find_stratum(const LevelPtr& level, const c10::IValue& value, LevelPtr& stratum,
                  bool& any_tangent) {
  if (value.isTensor()) {
    const Dual dual = unwrap_dual(level, value.toTensor());
    keep_inner(stratum, dual.primal);
    keep_inner(stratum, dual.tangent);
    any_tangent = any_tangent || dual.has_tangent();
  } else if (value.isList()) {
    for (const auto& element : value.toListRef()) {
      find_stratum(level, element, stratum, any_tangent);
    }
  }
}

Tensor native_dual(const Dual& dual, const LevelPtr& stratum, bool is_written) {
  if (!dual.defined()) {
    return {};
  }
  const Tensor primal = lift(dual.primal, stratum);
  if (!dual.has_tangent() && !is_written) {
    return primal;
  }
  TORCH_CHECK(
      !primal._fw_grad(0).defined(),
      "functx.jvp: an operator without a rule of its own met a tensor that has a tangent of "
      "torch.autograd.forward_ad. Unpack it first, or nest functx.jvp instead.");
  // A tensor without tangent that is written to needs one too, or it would keep the native tangent.
  return at::_make_dual(primal, dual.has_tangent() ? dual.tangent : at::zeros_like(primal), 0);
}

c10::IValue to_native(const LevelPtr& level, const c10::IValue& value, const LevelPtr& stratum,
                      bool is_written) {
  if (value.isTensor()) {
    return native_dual(unwrap_dual(level, value.toTensor()), stratum, is_written);
  }
  if (value.isList()) {
    auto copy = c10::impl::GenericList(value.toList().elementType());
    for (const auto& element : value.toListRef()) {
      copy.push_back(to_native(level, element, stratum, is_written));
    }
    return copy;
  }
  return value;
}

// The values of torch.func's wrappers have no tape of their own that we could use: a level of duals
// without tangent gives them one.
LevelPtr identity_stratum() {
  auto level = c10::make_intrusive<Level>(Transform::Jvp, 0, Randomness::Error);
  level->is_identity = true;
  return level;
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

// Without `any_tangent` a native tangent is not ours: torch.func.jvp outside of us uses them too.
c10::IValue from_native(const LevelPtr& level, const c10::IValue& value, bool any_tangent) {
  const auto to_dual = [&](const Tensor& result) {
    return make_dual(level, any_tangent ? from_native(result) : Dual{result, {}});
  };
  if (value.isTensor()) {
    return to_dual(value.toTensor());
  }
  if (value.isTensorList()) {
    c10::List<Tensor> duals;
    for (const Tensor& element : value.toTensorVector()) {
      duals.push_back(to_dual(element));
    }
    return duals;
  }
  return value;
}

// PyTorch runs an operator of a custom library that has a backward formula only, and drops the
// tangent: better an error than a wrong zero. Of its own operators it knows which are constant.
void check_has_tangent(const c10::FunctionSchema& schema, const c10::IValue& result) {
  const bool is_custom =
      schema.name().rfind("aten::", 0) != 0 && schema.name().rfind("prim", 0) != 0;
  if (is_custom && result.isTensor() && can_have_tangent(result.toTensor())) {
    TORCH_CHECK_NOT_IMPLEMENTED(
        result.toTensor()._fw_grad(0).defined(), "functx.jvp: ", schema.name(),
        " has no forward-mode derivative, although an input has a tangent. Write it in operators "
        "that "
        "have one, use reverse mode (functx.vjp), or detach its inputs if it is a constant.");
  }
}

void differentiate_natively(const c10::OperatorHandle& op, const LevelPtr& level,
                            torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const torch::jit::Stack arguments = torch::jit::pop(*stack, schema.arguments().size());
  // What an operator draws may be batched though none of its arguments is.
  LevelPtr stratum =
      op.hasTag(at::Tag::nondeterministic_seeded) ? innermost_wrapper_level() : LevelPtr();
  bool any_tangent = false;
  for (const auto& argument : arguments) {
    find_stratum(level, argument, stratum, any_tangent);
  }
  if (any_tangent && stratum == nullptr && torch_func_depth() > 0) {
    stratum = identity_stratum();
  }
  const NativeLevel native;
  const c10::AutoFwGradMode forward_grad(true);
  torch::jit::Stack values;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const bool written = any_tangent && is_written(schema.arguments()[i]);
    if (written && arguments[i].isTensor()) {
      check_can_hold_tangent(schema.name().c_str(), level, arguments[i].toTensor(), true);
    }
    values.push_back(to_native(level, arguments[i], stratum, written));
  }
  const torch::jit::Stack inputs = values;
  op.callBoxed(&values);
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (any_tangent && is_written(schema.arguments()[i]) && inputs[i].isTensor()) {
      write_back(schema.name().c_str(), level, arguments[i].toTensor(),
                 inputs[i].toTensor()._fw_grad(0));
    }
  }
  for (size_t position = 0; position < schema.returns().size(); ++position) {
    if (const auto written = written_argument(schema, schema.returns()[position])) {
      stack->push_back(arguments[*written]);
      continue;
    }
    if (any_tangent) {
      check_has_tangent(schema, values[position]);
    }
    stack->push_back(from_native(level, values[position], any_tangent));
  }
}

FUNCTX_RULES(jvp_fallback) { set_fallback(Transform::Jvp, differentiate_natively); }

}  // namespace
}  // namespace functx
