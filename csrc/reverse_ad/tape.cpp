#include "reverse_ad/tape.h"

#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <unordered_set>

#include "batching/batched_tensor.h"
#include "core/alias.h"
#include "forward_ad/dual_tensor.h"
#include "reverse_ad/lift.h"

namespace functx {
namespace {

using torch::autograd::Node;

// The tensors a wrapper stands for, one stratum down.
std::vector<Tensor> values_of(const Tensor& tensor) {
  const Wrapper* wrapper = as_wrapper(tensor);
  if (wrapper == nullptr) {
    return {};
  }
  if (wrapper->level()->transform == Transform::Vmap) {
    return {static_cast<const BatchedTensor*>(wrapper)->value()};
  }
  const Dual dual = static_cast<const DualTensor*>(wrapper)->dual();
  return dual.has_tangent() ? std::vector<Tensor>{dual.primal, dual.tangent}
                            : std::vector<Tensor>{dual.primal};
}

// Fresh autograd metadata on the same value. Not by detach on a wrapper, which would drop a tangent.
Tensor alias_untracked(const Tensor& tensor) {
  if (as_wrapper(tensor) != nullptr) {
    return alias_wrapper(tensor);
  }
  const bool has_native_tangent = torch::autograd::impl::get_autograd_meta(tensor) != nullptr &&
                                  tensor._fw_grad(0).defined();
  return has_native_tangent ? tensor.alias() : tensor.detach();
}

// Whether a leaf other than `own` is reached from `root` without passing through `own`.
bool reaches_other_leaf(Node* root, const std::unordered_set<Node*>& own) {
  std::vector<Node*> pending{root};
  std::unordered_set<Node*> seen(own.begin(), own.end());
  while (!pending.empty()) {
    Node* node = pending.back();
    pending.pop_back();
    if (!seen.insert(node).second) {
      continue;
    }
    if (dynamic_cast<torch::autograd::AccumulateGrad*>(node) != nullptr) {
      return true;
    }
    for (const auto& edge : node->next_edges()) {
      if (edge.is_valid()) {
        pending.push_back(edge.function.get());
      }
    }
  }
  return false;
}

}  // namespace

bool is_tracked(const Tensor& tensor) {
  if (tensor.requires_grad()) {
    return true;
  }
  const auto values = values_of(tensor);
  return std::any_of(values.begin(), values.end(), is_tracked);
}

std::vector<Tensor> track(const Level& level, const std::vector<Tensor>& inputs) {
  const LevelPtr stratum = innermost_wrapper_level();
  if (stratum != nullptr) {
    stratum->may_record = true;
  }
  std::vector<Tensor> tracked;
  tracked.reserve(inputs.size());
  for (const Tensor& input : inputs) {
    const Tensor lifted = lift(input, stratum);
    if (lifted.requires_grad() && level.grad_mode_outside) {
      // Recorded, so that an outer tape sees what the inner one does.
      tracked.push_back(lifted.alias());
    } else {
      tracked.push_back(alias_untracked(lifted));
      // The method of Python's Tensor is refused under torch.func's transforms.
      tracked.back().unsafeGetTensorImpl()->set_requires_grad(true);
    }
  }
  return tracked;
}

bool depends_on_outside(const Tensor& output, const std::vector<Tensor>& inputs) {
  const auto values = values_of(output);
  if (std::any_of(values.begin(), values.end(), is_tracked)) {
    return true;
  }
  if (!output.requires_grad()) {
    return false;
  }
  std::unordered_set<Node*> own;
  for (const Tensor& input : inputs) {
    if (input.grad_fn() != nullptr) {
      // An alias of something tracked outside.
      return true;
    }
    own.insert(torch::autograd::impl::gradient_edge(input).function.get());
  }
  return reaches_other_leaf(torch::autograd::impl::gradient_edge(output).function.get(), own);
}

Tensor detach_all(const Tensor& output) {
  const Wrapper* wrapper = as_wrapper(output);
  if (wrapper == nullptr) {
    return output.requires_grad() ? output.detach() : output;
  }
  if (!is_tracked(output)) {
    return output;
  }
  if (wrapper->level()->transform == Transform::Vmap) {
    const Batched batched = static_cast<const BatchedTensor*>(wrapper)->batched();
    return make_batched(wrapper->level(), {detach_all(batched.value), batched.is_batched});
  }
  Dual dual = static_cast<const DualTensor*>(wrapper)->dual();
  dual.primal = detach_all(dual.primal);
  dual.tangent = dual.has_tangent() ? detach_all(dual.tangent) : dual.tangent;
  return make_dual(wrapper->level(), std::move(dual));
}

std::vector<Tensor> run(const Pullback& pullback) {
  torch::autograd::edge_list roots;
  torch::autograd::variable_list cotangents;
  for (size_t i = 0; i < pullback.outputs.size(); ++i) {
    const Tensor& output = pullback.outputs[i];
    // An output that is not on any tape does not depend on the inputs.
    if (output.requires_grad()) {
      roots.push_back(torch::autograd::impl::gradient_edge(output));
      const Tensor& cotangent = pullback.cotangents[i];
      cotangents.push_back(cotangent.defined() ? cotangent : at::ones_like(output.detach()));
    }
  }
  torch::autograd::edge_list targets;
  for (const Tensor& input : pullback.inputs) {
    targets.push_back(torch::autograd::impl::gradient_edge(input));
  }
  std::vector<Tensor> gradients(pullback.inputs.size());
  if (!roots.empty()) {
    gradients = torch::autograd::Engine::get_default_engine().execute(
        roots, cotangents, pullback.retain_graph, pullback.create_graph,
        /*accumulate_grad=*/false, targets);
  }
  for (size_t i = 0; i < gradients.size(); ++i) {
    if (!gradients[i].defined()) {
      gradients[i] = at::zeros_like(detach_all(pullback.inputs[i]));
    }
  }
  return gradients;
}

}  // namespace functx
