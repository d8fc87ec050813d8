#include "reverse_ad/outside.h"

#include <algorithm>
#include <utility>

#include "core/tracked.h"
#include "reverse_ad/graph.h"

namespace functx {

bool Outside::sees(const Tensor& output) {
  if (is_tracked_below(output)) {
    return true;
  }
  if (!output.requires_grad()) {
    return false;
  }
  kept_.push_back(node_of(output));
  return is_reached(kept_.back().get());
}

bool Outside::is_outside(const Node& node) const {
  const uint64_t number = number_of(node);
  if (number >= first_number(level_)) {
    return false;
  }
  const auto last = static_cast<int64_t>(number / kNodesOfLevel);
  return last == 0 ||
         std::any_of(level_.around.begin(), level_.around.end(),
                     [&](const LevelPtr& each) { return each->id == last && each->alive; });
}

// Depth first, so that what has been seen to the end leads nowhere outside, and what is on the way
// to a node from before the level does.
bool Outside::is_reached(Node* root) {
  if (is_outside(*root)) {
    return true;
  }
  const auto [place, is_new] = known_.emplace(root, false);
  if (!is_new) {
    return place->second;
  }
  std::vector<std::pair<Node*, size_t>> path{{root, 0}};
  while (!path.empty()) {
    auto& [node, position] = path.back();
    const auto& edges = node->next_edges();
    if (position == edges.size()) {
      path.pop_back();
      continue;
    }
    Node* next = edges[position++].function.get();
    if (next == nullptr) {
      continue;
    }
    const auto found = known_.find(next);
    if (is_outside(*next) || (found != known_.end() && found->second)) {
      for (const auto& [passed, _] : path) {
        known_[passed] = true;
      }
      return true;
    }
    if (found == known_.end()) {
      known_.emplace(next, false);
      path.emplace_back(next, 0);
    }
  }
  return false;
}

}  // namespace functx
