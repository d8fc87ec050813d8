#include "reverse_ad/tape.h"

#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <utility>

#include "batching/batched_tensor.h"
#include "core/alias.h"
#include "forward_ad/dual_tensor.h"
#include "reverse_ad/graph.h"
#include "reverse_ad/lift.h"
#include "reverse_ad/seed.h"
#include "reverse_ad/tracked.h"

namespace functx {
namespace {

// Fresh autograd metadata on the same value. Not by detach on a wrapper, which would drop a
// tangent.
Tensor alias_untracked(const Tensor& tensor) {
  if (as_wrapper(tensor) != nullptr) {
    return alias_wrapper(tensor);
  }
  const bool has_native_tangent =
      torch::autograd::impl::get_autograd_meta(tensor) != nullptr && tensor._fw_grad(0).defined();
  if (tensor.is_inference()) {
    // Autograd does not take it as a leaf.
    return tensor.clone();
  }
  return has_native_tangent ? tensor.alias() : tensor.detach();
}

// Whose tape a leaf began, if that is one of ours. Graphs that outlive a level keep its leaves,
// which nobody asks for a gradient any more.
struct LeafOf final : c10::BackendMeta {
  explicit LeafOf(LevelPtr level) : level(std::move(level)) {}
  c10::intrusive_ptr<c10::BackendMeta> clone(
      const c10::intrusive_ptr<c10::BackendMeta>& self) const override {
    return self;
  }
  const LevelPtr level;
};

LevelPtr innermost_grad_level() {
  const auto levels = active_levels();
  for (auto level = levels.rbegin(); level != levels.rend(); ++level) {
    if ((*level)->transform == Transform::Grad) {
      return *level;
    }
  }
  return nullptr;
}

// Whether what `node` gives a gradient to can ask for it outside of `level`.
bool is_leaf_outside(const Level& level, const Node* node) {
  const auto* leaf = dynamic_cast<const torch::autograd::AccumulateGrad*>(node);
  if (leaf == nullptr) {
    return false;
  }
  const auto* mark =
      dynamic_cast<LeafOf*>(leaf->variable.unsafeGetTensorImpl()->get_backend_meta());
  return mark == nullptr || (mark->level->alive && mark->level->id < level.id);
}

// Whether something tracked outside of `level`, which tracks `inputs`, can see `output`: then the
// backward pass has to be recorded, and the output may not be detached.
bool depends_on_outside(const Level& level, const Tensor& output,
                        const std::vector<Tensor>& inputs) {
  if (is_tracked_below(output)) {
    return true;
  }
  if (!output.requires_grad()) {
    return false;
  }
  const auto is_alias = [](const Tensor& input) { return input.grad_fn() != nullptr; };
  return std::any_of(inputs.begin(), inputs.end(), is_alias) ||  // of something tracked outside
         reaches(node_of(output), {}, [&](Node* node) { return is_leaf_outside(level, node); });
}

// Behind the node that stands for the derivative of a once_differentiable backward there is
// nothing, so an input would seem not to be reached.
void check_differentiable(const torch::autograd::edge_list& roots) {
  for (const auto& root : roots) {
    TORCH_CHECK(!reaches<torch::autograd::Error>(root.function.get()),
                "functx: trying to differentiate twice a function that was marked with "
                "@once_differentiable. Remove the mark if its backward is made of differentiable "
                "operators.");
  }
}

// The wrapper `tensor` with another value, on the same tape.
Tensor with_value(const Tensor& tensor, const LevelPtr& level, Batched value) {
  Tensor recorded = tensor.alias();
  recorded.unsafeGetTensorImpl()->shallow_copy_from(
      make_batched(level, std::move(value)).getIntrusivePtr());
  return recorded;
}

Tensor with_value(const Tensor& tensor, const LevelPtr& level, Dual value) {
  Tensor recorded = tensor.alias();
  at_level<DualTensor>(recorded, *level)->become(std::move(value));
  return recorded;
}

// `tensor` without the wrapper level that `level` brought for its tape, which may by now be below
// one of an inner transform of the pullback.
Tensor outside_stratum(const Level& level, const Tensor& tensor) {
  Wrapper* wrapper = as_wrapper(tensor);
  if (level.stratum == nullptr || wrapper == nullptr) {
    return tensor;
  }
  if (wrapper->level() == level.stratum) {
    return static_cast<const DualTensor*>(wrapper)->primal();
  }
  if (wrapper->level()->transform == Transform::Vmap) {
    const Batched batched = static_cast<const BatchedTensor*>(wrapper)->batched();
    const Tensor value = outside_stratum(level, batched.value);
    return value.is_same(batched.value)
               ? tensor
               : with_value(tensor, wrapper->level(), Batched{value, batched.is_batched});
  }
  const Dual dual = static_cast<DualTensor*>(wrapper)->lend();
  const Tensor primal = outside_stratum(level, dual.primal);
  const Tensor tangent = outside_stratum(level, dual.tangent);
  return primal.is_same(dual.primal) && tangent.is_same(dual.tangent)
             ? tensor
             : with_value(tensor, wrapper->level(), Dual{primal, tangent, false});
}

}  // namespace

std::vector<Tensor> track(const std::vector<Tensor>& inputs) {
  const LevelPtr stratum = innermost_wrapper_level();
  if (stratum != nullptr) {
    stratum->may_record = true;
  }
  const LevelPtr level = innermost_grad_level();
  std::vector<Tensor> tracked;
  tracked.reserve(inputs.size());
  for (const Tensor& input : inputs) {
    const Tensor lifted = lift(input, stratum);
    if (lifted.requires_grad()) {
      // Recorded, so that an outer tape sees what the inner one does: under no_grad outside as
      // well, for the function that vjp returns may be called when that is over.
      tracked.push_back(lifted.alias());
    } else {
      tracked.push_back(alias_untracked(lifted));
      if (level != nullptr) {
        tracked.back().unsafeGetTensorImpl()->set_backend_meta(c10::make_intrusive<LeafOf>(level));
      }
      // The method of Python's Tensor is refused under torch.func's transforms.
      tracked.back().unsafeGetTensorImpl()->set_requires_grad(true);
    }
  }
  return tracked;
}

Tensor release(const Level& level, const Tensor& output, const std::vector<Tensor>& inputs) {
  if (level.stratum != nullptr) {
    // The tape sits on wrappers that end here; tapes outside see their values.
    const Tensor value = outside_stratum(level, output);
    return level.grad_mode_outside ? value : detach_all(value);
  }
  const bool keeps = level.grad_mode_outside && depends_on_outside(level, output, inputs);
  return keeps ? output : detach_all(output);
}

std::vector<Tensor> pullback(const Level& level, const std::vector<Tensor>& outputs,
                             const std::vector<Tensor>& inputs,
                             const std::vector<Tensor>& cotangents, bool retain_graph) {
  if (inputs.empty()) {
    return {};
  }
  const std::optional<c10::InferenceMode> outside_inference_mode =
      c10::InferenceMode::is_enabled() ? std::make_optional<c10::InferenceMode>(false)
                                       : std::nullopt;
  const bool records = level.alive ? level.grad_mode_outside : c10::GradMode::is_enabled();
  // torch.func's tapes are not to be seen from here: they may be there.
  const bool create_graph =
      records &&
      (level.stratum != nullptr || std::any_of(cotangents.begin(), cotangents.end(), is_tracked) ||
       std::any_of(outputs.begin(), outputs.end(), [&](const Tensor& output) {
         return depends_on_outside(level, output, inputs);
       }));
  const LevelPtr stratum = innermost_of(cotangents, innermost_of(inputs, innermost_of(outputs)));
  TORCH_CHECK_NOT_IMPLEMENTED(
      level.stratum == nullptr || stratum == level.stratum || !stratum->is_identity,
      "functx.grad: the function that functx.vjp returned inside of a transform of torch.func "
      "can't "
      "be differentiated in reverse there. Use functx for the transform around it as well (see "
      "functx.dropin).");
  torch::autograd::edge_list roots;
  torch::autograd::variable_list seeds;
  for (size_t i = 0; i < outputs.size(); ++i) {
    // An output that is not on any tape does not depend on the inputs.
    if (outputs[i].requires_grad()) {
      roots.push_back(torch::autograd::impl::gradient_edge(outputs[i]));
      seeds.push_back(seed(outputs[i], cotangents[i], stratum));
    }
  }
  torch::autograd::edge_list targets;
  for (const Tensor& input : inputs) {
    targets.push_back(torch::autograd::impl::gradient_edge(input));
  }
  std::vector<Tensor> gradients(inputs.size());
  if (!roots.empty()) {
    gradients = torch::autograd::Engine::get_default_engine().execute(
        roots, seeds, retain_graph || create_graph, create_graph, /*accumulate_grad=*/false,
        targets);
  }
  if (std::any_of(gradients.begin(), gradients.end(),
                  [](const Tensor& g) { return !g.defined(); })) {
    check_differentiable(roots);
  }
  for (size_t i = 0; i < gradients.size(); ++i) {
    gradients[i] = outside_stratum(
        level, gradients[i].defined() ? gradients[i] : at::zeros_like(detach_all(inputs[i])));
  }
  return gradients;
}

void let_go(Level& level, const std::vector<Tensor>& inputs) {
  for (const Tensor& argument : std::exchange(level.written_arguments, {})) {
    if (!argument.requires_grad() || depends_on_outside(level, argument, inputs)) {
      continue;
    }
    // Its nodes may yet be needed, by aux: only the tensor forgets them.
    if (argument.is_view()) {
      argument._base().unsafeGetTensorImpl()->set_autograd_meta(nullptr);
    }
    argument.unsafeGetTensorImpl()->set_autograd_meta(nullptr);
  }
}

}  // namespace functx
