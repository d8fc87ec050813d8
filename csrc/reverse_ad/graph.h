// Looking for a node in autograd's graph.
#pragma once

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include <unordered_set>
#include <utility>
#include <vector>

namespace functx {

using torch::autograd::Node;

// Where `tensor` gets its gradient; there is one on a tape only.
inline Node* node_of(const at::Tensor& tensor) {
  return torch::autograd::impl::gradient_edge(tensor).function.get();
}

// Whether `accepts` a node that is reached from `root` without passing through `stops`.
template <class Accepts>
bool reaches(Node* root, std::unordered_set<Node*> stops, const Accepts& accepts) {
  std::vector<Node*> pending{root};
  while (!pending.empty()) {
    Node* node = pending.back();
    pending.pop_back();
    if (!stops.insert(node).second) {
      continue;
    }
    if (accepts(node)) {
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

// A node of class `Kind`.
template <class Kind>
bool reaches(Node* root, std::unordered_set<Node*> stops = {}) {
  return reaches(root, std::move(stops),
                 [](Node* node) { return dynamic_cast<Kind*>(node) != nullptr; });
}

}  // namespace functx
