// Looking for nodes in autograd's graph.
#pragma once

#include <torch/csrc/autograd/variable.h>

#include <unordered_set>
#include <vector>

#include "core/node_numbers.h"

namespace functx {

// Where `tensor`, which is on a tape, gets its gradient. The caller keeps it: the tensor has but a
// weak reference to the node of a leaf.
inline NodePtr node_of(const at::Tensor& tensor) {
  return torch::autograd::impl::gradient_edge(tensor).function;
}

// Whether `accepts` a node that is reached from one of `roots` by nodes with at least this number.
template <class Accepts>
bool reaches(const std::vector<NodePtr>& roots, uint64_t least, const Accepts& accepts) {
  std::unordered_set<Node*> seen;
  std::vector<Node*> pending;
  for (const NodePtr& root : roots) {
    pending.push_back(root.get());
  }
  while (!pending.empty()) {
    Node* node = pending.back();
    pending.pop_back();
    if (accepts(node)) {
      return true;
    }
    if (number_of(*node) < least || !seen.insert(node).second) {
      continue;
    }
    for (const auto& edge : node->next_edges()) {
      if (edge.is_valid() && seen.count(edge.function.get()) == 0) {
        pending.push_back(edge.function.get());
      }
    }
  }
  return false;
}

// A node of class `Kind`.
template <class Kind>
bool reaches(const std::vector<NodePtr>& roots, uint64_t least) {
  return reaches(roots, least, [](Node* node) { return dynamic_cast<Kind*>(node) != nullptr; });
}

}  // namespace functx
