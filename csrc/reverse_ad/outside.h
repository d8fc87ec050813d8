// Whether something tracked outside of a level can see its results: then its backward pass has to
// be recorded, and the results may not be detached.
#pragma once

#include <c10/util/flat_hash_map.h>

#include <vector>

#include "core/node_numbers.h"
#include "core/wrapper.h"

namespace functx {

// Asked about all results of a level, it looks at each node of the level once, and at none that was
// there before, but for those of levels that are done: graphs that outlive a level keep its leaves,
// which nobody asks for a gradient any more.
class Outside {
 public:
  explicit Outside(const Level& level) : level_(level) {}

  bool sees(const Tensor& output);

 private:
  bool is_outside(const Node& node) const;
  bool is_reached(Node* root);

  const Level& level_;
  ska::flat_hash_map<Node*, bool> known_;
  std::vector<NodePtr> kept_;
};

}  // namespace functx
