// By PyTorch's own forward AD, one stratum down. Primals and tangents become transient native
// duals, the operator runs on them, and its tangent is read back. That reaches every formula
// PyTorch has, and nests, because the native dual may itself sit on a wrapper.
#include <ATen/ops/_make_dual.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/forward_grad.h>

#include <mutex>

#include "core/functional_variant.h"
#include "core/lift.h"
#include "core/torch_func.h"
#include "forward_ad/boxed_duals.h"
#include "forward_ad/fallback.h"
#include "forward_ad/inplace.h"

namespace functx {
namespace {

using torch::autograd::ForwardADLevel;

// PyTorch has a single native forward level for the whole process: shared by all threads that are
// in the fallback, and with a user who has entered torch.autograd.forward_ad.dual_level(). One who
// leaves it on another thread takes the tangents of all with it, see `differentiate_natively`.
class NativeLevel {
 public:
  NativeLevel() {
    const std::lock_guard<std::mutex> lock(mutex);
    ++users;
    if (ForwardADLevel::try_get_by_idx(0) == nullptr) {
      try {
        ForwardADLevel::get_next_idx();
        is_ours = true;
      } catch (const c10::Error&) {
        // A user has entered it in between: it is there.
      }
    }
  }
  ~NativeLevel() {
    const std::lock_guard<std::mutex> lock(mutex);
    if (--users == 0 && is_ours) {
      is_ours = false;
      if (ForwardADLevel::try_get_by_idx(0) != nullptr) {
        ForwardADLevel::release_idx(0);
      }
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
  // What was made in inference mode is never given a tangent by an operator.
  return at::_make_dual(primal.is_inference() ? primal.clone() : primal, dual.tangent, 0);
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

// The tangent of each tensor in `value` that the native level has one for.
c10::IValue tangents_of(const c10::IValue& value) {
  return map_tensors(value, [](const Tensor& tensor) {
    return tensor.defined() ? Tensor(tensor._fw_grad(0)) : Tensor();
  });
}

// One try: the arguments, results and what they have for tangents. None if somebody has left the
// native level meanwhile, and the tangents with it.
struct Natively {
  torch::jit::Stack inputs;
  torch::jit::Stack results;
  torch::jit::Stack tangents;  // of arguments that were written to
  std::vector<Dual> duals;     // of the tensors in the results that are new, in their order
};

std::optional<Natively> try_natively(const c10::OperatorHandle& op,
                                     const torch::jit::Stack& arguments, const LevelPtr& level,
                                     const LevelPtr& stratum) {
  const NativeLevel shared;
  // It is not torn down while we hold it, only replaced.
  const auto native = ForwardADLevel::try_get_by_idx(0);
  const auto is_intact = [&] {
    return native != nullptr && ForwardADLevel::try_get_by_idx(0) == native;
  };
  const auto& schema = op.schema();
  Natively attempt;
  try {
    for (size_t i = 0; i < arguments.size(); ++i) {
      const bool written = is_written(schema.arguments()[i]);
      attempt.inputs.push_back(map_tensors(arguments[i], [&](const Tensor& tensor) {
        return native_dual(unwrap_dual(level, tensor), stratum, written);
      }));
    }
    attempt.results = attempt.inputs;
    op.callBoxed(&attempt.results);
    for (size_t i = 0; i < arguments.size(); ++i) {
      attempt.tangents.push_back(is_written(schema.arguments()[i]) ? tangents_of(attempt.inputs[i])
                                                                   : c10::IValue());
    }
    for (size_t i = 0; i < attempt.results.size(); ++i) {
      if (!written_argument(schema, schema.returns()[i])) {
        visit_tensors(attempt.results[i],
                      [&](const Tensor& result) { attempt.duals.push_back(from_native(result)); });
      }
    }
  } catch (const c10::Error&) {
    if (is_intact() || schema.is_mutable()) {
      throw;
    }
    return std::nullopt;
  }
  return is_intact() ? std::make_optional(std::move(attempt)) : std::nullopt;
}

}  // namespace

void differentiate_natively(const c10::OperatorHandle& op, const LevelPtr& level,
                            const torch::jit::Stack& arguments, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto& name = schema.name();
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (is_written(schema.arguments()[i])) {
      visit_tensors(arguments[i], [&](const Tensor& tensor) {
        check_can_hold_tangent(name.c_str(), level, tensor, true);
      });
    }
  }
  const LevelPtr stratum = stratum_of(op, level, arguments);
  // There, tensors have no tangents.
  std::optional<c10::InferenceMode> outside_inference_mode;
  if (c10::InferenceMode::is_enabled()) {
    outside_inference_mode.emplace(false);
  }
  const c10::AutoFwGradMode forward_grad(true);
  constexpr int kTries = 100;
  std::optional<Natively> done;
  // What an operator has written it can't write again.
  for (int tries = schema.is_mutable() ? 1 : kTries; !done && tries > 0; --tries) {
    done = try_natively(op, arguments, level, stratum);
  }
  TORCH_CHECK(
      done, "functx.jvp: while ", op.operator_name(),
      " was differentiated by PyTorch's own forward-mode AD, which has one level for all "
      "threads, another thread left torch.autograd.forward_ad.dual_level(), and the tangents "
      "are lost. Use functx.jvp on that thread too, or a lock around the two.");
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (is_written(schema.arguments()[i])) {
      write_results(schema, arguments[i], done->tangents[i],
                    [&](const Tensor& dual, const Tensor& tangent) {
                      write_tangent(name.c_str(), level, dual, tangent);
                    });
    }
  }
  const Lenders lenders(level, arguments);
  size_t next = 0;
  push_results(
      schema, arguments, done->results,
      [&](const Tensor&) { return make_dual(level, lenders.settle(done->duals[next++])); }, stack);
}

}  // namespace functx
