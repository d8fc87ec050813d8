// Which level a node of autograd's graph depends on, read off its number.
//
// PyTorch numbers each node above those that it leads to (`topological_nr`); by that its engine
// sees where it need not look for an input. The nodes at which the inputs of a level begin get
// numbers above all that was there before. So a node with a smaller one leads to none of these
// inputs, and neither the engine nor we walk through a history that was there before the level.
#pragma once

#include <torch/csrc/autograd/function.h>

#include "core/level.h"

namespace functx {

using torch::autograd::Node;
// PyTorch has counted the references to its nodes in two ways.
using NodePtr = decltype(torch::autograd::Edge::function);

// Those of the inputs of a level. Longer chains than this are no error, but walked through.
inline constexpr uint64_t kNodesOfLevel = uint64_t{1} << 24;
inline uint64_t first_number(const Level& level) {
  return static_cast<uint64_t>(level.id) * kNodesOfLevel;
}

namespace detail {

// The member is protected; asking by its method would forbid the node to get another edge.
struct NodeAccess : Node {
  static constexpr auto number = &NodeAccess::topological_nr_;
};

}  // namespace detail

inline uint64_t number_of(const Node& node) { return node.*detail::NodeAccess::number; }

inline void raise_number(Node& node, uint64_t least) {
  uint64_t& number = node.*detail::NodeAccess::number;
  number = std::max(number, least);
}

}  // namespace functx
