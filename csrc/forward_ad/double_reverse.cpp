// Forward mode from reverse mode: for operators that PyTorch can differentiate in reverse only, as
// most are that users define. A pullback u -> J^T u is linear, so that its own pullback is v -> J
// v, whatever the u at which it was recorded.
#include <c10/util/ScopeExit.h>
#include <torch/csrc/autograd/function.h>

#include <optional>

#include "batching/batched_tensor.h"
#include "core/lift.h"
#include "core/saved_tensor_hooks.h"
#include "core/tracked.h"
#include "forward_ad/boxed_duals.h"
#include "forward_ad/conform.h"
#include "forward_ad/fallback.h"
#include "forward_ad/sharing.h"
#include "forward_ad/transposition.h"
#include "reverse_ad/tape.h"

namespace functx {
namespace {

Elaborate elaborate = nullptr;

// A reverse-mode level, left when this goes out of scope.
class GradLevel {
 public:
  GradLevel() : level_(push_grad()) {}
  ~GradLevel() { pop(level_); }
  GradLevel(const GradLevel&) = delete;
  GradLevel& operator=(const GradLevel&) = delete;

  const LevelPtr& get() const { return level_; }

 private:
  LevelPtr level_;
};

constexpr auto remedy =
    " Give it a rule with functx.register_jvp_rule, write it in operators that have derivatives, "
    "or "
    "detach its inputs if it is a constant.";

// Where autograd has no formula it records a node that says so, or only warns of it.
bool has_formula(const Tensor& output) {
  return output.grad_fn() == nullptr ||
         output.grad_fn()->name().find("NotImplemented") == std::string::npos;
}

void check_has_formula(const c10::OperatorHandle& op, const torch::jit::Stack& results) {
  bool differentiable = false;
  bool recorded = false;
  visit_tensors(results, [&](const Tensor& output) {
    differentiable = differentiable || (output.defined() && can_have_tangent(output));
    recorded = recorded || (output.defined() && output.requires_grad() && has_formula(output));
  });
  TORCH_CHECK_NOT_IMPLEMENTED(recorded || !differentiable, "functx.jvp: ", op.operator_name(),
                              " has no derivative, neither in forward nor in reverse mode, "
                              "although an input has a tangent.",
                              remedy);
}

// A gradient of zero need not depend on the cotangents. All else does, though autograd may not see
// it: because the formula leaves PyTorch, or detaches them.
void check_recorded(const c10::OperatorHandle& op, const std::vector<Tensor>& gradients) {
  for (const Tensor& gradient : gradients) {
    TORCH_CHECK_NOT_IMPLEMENTED(
        gradient.requires_grad() || innermost_value(gradient).count_nonzero().item<int64_t>() == 0,
        "functx.jvp: ", op.operator_name(),
        " has no forward-mode derivative, and none can be had from its backward, since that "
        "computes with the gradients what autograd does not see.",
        remedy);
  }
}

// `differentiate`, with errors that say what they are about.
template <class Differentiate>
auto elaborating(const c10::OperatorHandle& op, const Differentiate& differentiate) {
  const auto before = "functx.jvp: " + c10::toString(op.operator_name()) +
                      " has no forward-mode derivative, and its backward could not be "
                      "differentiated to get one: ";
  try {
    return differentiate();
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const c10::Error& error) {
    const std::string reason = error.what_without_backtrace();
    if (reason.starts_with("functx.jvp: ")) {
      throw;
    }
    TORCH_CHECK_NOT_IMPLEMENTED(false, before, reason, remedy);
  } catch (...) {
    if (elaborate != nullptr) {
      elaborate(before, remedy);
    }
    throw;
  }
}

// PyTorch's own formulas are linear.
bool is_of_pytorch(const c10::OperatorHandle& op) {
  return op.operator_name().name.starts_with("aten::");
}

std::vector<Tensor> probes(Probe kind, const std::vector<Tensor>& outputs) {
  std::vector<Tensor> cotangents;
  for (const Tensor& output : outputs) {
    cotangents.push_back(probe(kind, output.sym_sizes(), output.scalar_type(), output.device()));
  }
  return cotangents;
}

// The primals of an operator and its pullback, recorded.
struct Recording {
  LevelPtr reverse;                 // where the operator was called
  torch::jit::Stack results;        // as the operator returned them
  std::vector<Tensor> raw_outputs;  // those which autograd has recorded
  std::vector<Tensor> outputs;      // these, handed out
  std::vector<Tensor> inputs;       // primals of the arguments that have tangents
  std::vector<Tensor> cotangents;   // of the outputs
  std::vector<Tensor> gradients;    // of the inputs, from the cotangents
  // As it was before the pullback, if that has to show that it is linear.
  std::optional<RandomState> random;
};

Recording record(const c10::OperatorHandle& op, const LevelPtr& level, const LevelPtr& transpose,
                 const torch::jit::Stack& arguments, const std::vector<Tensor>& primals,
                 bool checks) {
  Recording recording;
  {
    const GradLevel grad;
    recording.reverse = grad.get();
    recording.inputs = track(primals);
    auto next = recording.inputs.begin();
    recording.results = map_tensors(arguments, [&](const Tensor& tensor) {
      const Dual dual = unwrap_dual(level, tensor);
      return dual.has_tangent() ? *next++ : dual.primal;
    });
    op.callBoxed(&recording.results);
    check_has_formula(op, recording.results);
    Outside outside(*recording.reverse);
    visit_tensors(recording.results, [&](const Tensor& output) {
      if (output.requires_grad()) {
        TORCH_CHECK_NOT_IMPLEMENTED(output.layout() == at::kStrided,
                                    "functx.jvp: ", op.operator_name(),
                                    " returns a tensor of layout ", output.layout(),
                                    ", whose tangent can't be had from its backward.", remedy);
        recording.raw_outputs.push_back(output);
        recording.outputs.push_back(release(*recording.reverse, output, outside));
      }
    });
  }
  recording.cotangents = track(probes(Probe::ToRecord, recording.outputs));
  if (checks) {
    recording.random.emplace(primals);
  }
  recording.gradients = elaborating(op, [&] {
    return pullback(*recording.reverse, recording.raw_outputs, recording.inputs,
                    recording.cotangents, /*retain_graph=*/true);
  });
  check_recorded(op, recording.gradients);
  Outside outside(*transpose);
  for (Tensor& output : recording.outputs) {
    output = release(*transpose, output, outside);
  }
  return recording;
}

// Runs the pullback once more, for `output_tangents` to be confirmed.
void check_linear(const c10::OperatorHandle& op, Recording& recording,
                  const std::vector<Tensor>& tangents, const std::vector<Tensor>& output_tangents) {
  const at::NoGradGuard no_grad;
  const auto recorded_at = probes(Probe::ToRecord, recording.outputs);
  const auto others = probes(Probe::ToCompare, recording.outputs);
  const std::vector<Tensor> gradients = elaborating(op, [&] {
    recording.random->swap();
    const auto afterwards = c10::make_scope_exit([&] { recording.random->swap(); });
    return pullback(*recording.reverse, recording.raw_outputs, recording.inputs, others,
                    /*retain_graph=*/true);
  });
  TORCH_CHECK_NOT_IMPLEMENTED(
      is_transpose(recording.gradients, tangents, recorded_at, output_tangents) &&
          is_transpose(gradients, tangents, others, output_tangents),
      "functx.jvp: ", op.operator_name(),
      " has no forward-mode derivative, and none can be had from its backward, since that is not "
      "linear in the gradients, or hides from autograd some of what it does with them.",
      remedy);
}

// A constant that was lifted to a vmap level for the tape's sake need not stay there.
Tensor lowered(const Tensor& tensor) {
  const auto* wrapper = as_kind<BatchedTensor>(as_wrapper(tensor));
  if (wrapper == nullptr || wrapper->is_batched() || tensor.requires_grad()) {
    return tensor;
  }
  return lowered(wrapper->value());
}

}  // namespace

void set_elaborate(Elaborate function) { elaborate = function; }

void differentiate_by_double_reverse(const c10::OperatorHandle& op, const LevelPtr& level,
                                     const torch::jit::Stack& arguments, torch::jit::Stack* stack) {
  std::vector<Tensor> primals;
  std::vector<Tensor> tangents;
  LevelPtr stratum = innermost_wrapper_level();
  visit_tensors(arguments, [&](const Tensor& tensor) {
    const Dual dual = unwrap_dual(level, tensor);
    stratum = innermost_of({dual.primal}, std::move(stratum));
    if (dual.has_tangent()) {
      primals.push_back(dual.primal);
      tangents.push_back(dual.tangent);
    }
  });
  for (Tensor& primal : primals) {
    primal = lift(primal, stratum);
  }
  const NoSavedTensorHooks no_hooks;  // these tapes are gone in a moment
  const bool checks = !is_of_pytorch(op) && has_numbers(primals) && has_numbers(tangents);
  LevelPtr transpose;
  Recording recording;
  {
    const GradLevel grad;
    transpose = grad.get();
    recording = record(op, level, transpose, arguments, primals, checks);
  }
  const std::vector<Tensor> output_tangents = elaborating(op, [&] {
    return pullback(*transpose, recording.gradients, recording.cotangents, tangents,
                    /*retain_graph=*/false);
  });
  if (checks) {
    check_linear(op, recording, tangents, output_tangents);
  }
  const Lenders lenders(level, arguments);
  size_t next = 0;
  push_results(
      op.schema(), arguments, recording.results,
      [&](const Tensor& result) {
        if (!result.requires_grad()) {
          return make_dual(level, {lowered(result), {}});
        }
        const size_t i = next++;
        return make_dual(level,
                         lenders.settle({lowered(recording.outputs[i]), output_tangents[i]}));
      },
      stack);
}

}  // namespace functx
