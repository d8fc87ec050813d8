#include "reverse_ad/tape.h"

#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "core/alias.h"
#include "core/lift.h"
#include "core/tracked.h"
#include "reverse_ad/graph.h"
#include "reverse_ad/seed.h"

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

using Leaves = std::vector<NodePtr>;

// `input`, which is on no tape, as the beginning of one of `level`.
void begin_tape(Tensor& input, Level& level) {
  // The method of Python's Tensor is refused under torch.func's transforms.
  input.unsafeGetTensorImpl()->set_requires_grad(true);
  NodePtr leaf = torch::autograd::impl::grad_accumulator(input);
  raise_number(*leaf, first_number(level));
  if (level.leaves == nullptr) {
    level.leaves = std::make_shared<Leaves>();
  }
  std::static_pointer_cast<Leaves>(level.leaves)->push_back(std::move(leaf));
}

// Autocast keeps the casts of leaves until its region ends: a cast of ours would keep the tape.
bool keeps_casts_of_leaves() {
  const auto excluded = c10::impl::tls_local_dispatch_key_set().excluded_;
  return !excluded.has_all(c10::autocast_dispatch_keyset);
}

// `tensor` as something that was computed at `level`.
Tensor recorded_alias(const Tensor& tensor, const Level& level) {
  Tensor alias = tensor.alias();
  raise_number(*alias.grad_fn(), first_number(level));
  return alias;
}

LevelPtr innermost_grad_level() {
  const auto levels = active_levels();
  for (auto level = levels.rbegin(); level != levels.rend(); ++level) {
    if ((*level)->transform == Transform::Grad) {
      return *level;
    }
  }
  return nullptr;
}

// Behind the node that stands for the derivative of a once_differentiable backward there is
// nothing, so an input would seem not to be reached.
void check_differentiable(const std::vector<NodePtr>& roots) {
  TORCH_CHECK(!reaches<torch::autograd::Error>(roots, /*least=*/0),
              "functx: trying to differentiate twice a function that was marked with "
              "@once_differentiable. Remove the mark if its backward is made of differentiable "
              "operators.");
}

// `tensor` without the wrapper level that `level` brought for its tape, which may by now be below
// one of an inner transform of the pullback.
Tensor outside_stratum(const Level& level, const Tensor& tensor) {
  Wrapper* wrapper = as_wrapper(tensor);
  if (level.stratum == nullptr || wrapper == nullptr) {
    return tensor;
  }
  const auto values = wrapper->values();
  if (wrapper->level() == level.stratum) {
    return values[0];
  }
  auto outside = values;
  std::transform(values.begin(), values.end(), outside.begin(),
                 [&](const Tensor& value) { return outside_stratum(level, value); });
  if (std::equal(values.begin(), values.end(), outside.begin(),
                 [](const Tensor& a, const Tensor& b) { return a.is_same(b); })) {
    return tensor;
  }
  Tensor moved = wrapper->around(outside);
  if (tensor.requires_grad()) {
    torch::autograd::impl::set_gradient_edge(moved, torch::autograd::impl::gradient_edge(tensor));
  }
  return moved;
}

// Without the tangents of transforms that have returned, of which nobody asks any more. A batch
// stays, and whoever uses it is told that it has escaped.
Tensor outside_the_returned(const Tensor& gradient) {
  const Wrapper* wrapper = as_wrapper(gradient);
  const bool is_over = wrapper != nullptr && !wrapper->level()->alive &&
                       (wrapper->level()->transform == Transform::Jvp || wrapper->is_its_value());
  return is_over ? outside_the_returned(wrapper->values()[0]) : gradient;
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
      tracked.push_back(recorded_alias(lifted, *level));
    } else {
      Tensor leaf = alias_untracked(lifted);
      begin_tape(leaf, *level);
      tracked.push_back(keeps_casts_of_leaves() ? recorded_alias(leaf, *level) : leaf);
    }
  }
  return tracked;
}

Tensor release(const Level& level, const Tensor& output, Outside& outside) {
  if (level.stratum != nullptr) {
    // The tape sits on wrappers that end here; tapes outside see their values.
    const Tensor value = outside_stratum(level, output);
    return level.grad_mode_outside ? value : detach_all(value);
  }
  const bool keeps = level.grad_mode_outside && outside.sees(output);
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
  // On a thread of its own the pullback is inside of what was around the level.
  std::vector<LevelPtr> around = active_levels().vec();
  if (around.empty()) {
    std::copy_if(level.around.begin(), level.around.end(), std::back_inserter(around),
                 [](const LevelPtr& each) { return each->alive; });
  }
  std::optional<CarriedLevels> carried;
  if (around.size() > 1 || (around.size() == 1 && around[0].get() != &level)) {
    carried.emplace(std::move(around));
  }
  Outside outside(level);
  const bool records = level.alive ? level.grad_mode_outside : c10::GradMode::is_enabled();
  // torch.func's tapes are not to be seen from here: they may be there.
  const bool create_graph =
      records &&
      (level.stratum != nullptr || std::any_of(cotangents.begin(), cotangents.end(), is_tracked) ||
       std::any_of(outputs.begin(), outputs.end(),
                   [&](const Tensor& output) { return outside.sees(output); }));
  const LevelPtr stratum = innermost_of(cotangents, innermost_of(inputs, innermost_of(outputs)));
  TORCH_CHECK_NOT_IMPLEMENTED(
      level.stratum == nullptr || stratum == level.stratum || !stratum->is_identity,
      "functx.grad: the function that functx.vjp returned inside of a transform of torch.func "
      "can't "
      "be differentiated in reverse there. Use functx for the transform around it as well (see "
      "functx.dropin).");
  torch::autograd::edge_list roots;
  std::vector<NodePtr> nodes;
  // An output that is not on any tape does not depend on the inputs.
  for (const Tensor& output : outputs) {
    if (output.requires_grad()) {
      roots.push_back(torch::autograd::impl::gradient_edge(output));
      nodes.push_back(roots.back().function);
    }
  }
  const bool in_full = stratum != nullptr && writes_into_views(nodes, first_number(level));
  torch::autograd::variable_list seeds;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].requires_grad()) {
      seeds.push_back(seed(outputs[i], cotangents[i], stratum, in_full));
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
    check_differentiable(nodes);
  }
  for (size_t i = 0; i < gradients.size(); ++i) {
    gradients[i] = outside_the_returned(outside_stratum(
        level, gradients[i].defined() ? gradients[i] : at::zeros_like(detach_all(inputs[i]))));
  }
  return gradients;
}

void let_go(Level& level) {
  if (level.written_arguments.empty()) {
    return;
  }
  Outside outside(level);
  for (const Tensor& argument : std::exchange(level.written_arguments, {})) {
    if (!argument.requires_grad() || outside.sees(argument)) {
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
