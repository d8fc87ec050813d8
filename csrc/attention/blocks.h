// The score matrix [queries, keys] of every item and head, cut into blocks, so that no more than
// one of them is ever in memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <map>
#include <optional>
#include <vector>

namespace functx {

using at::Tensor;

// A size that decides how the work is cut: one that is symbolic is fixed.
inline int64_t size_of(const Tensor& tensor, int64_t dim) {
  return tensor.sym_size(dim).guard_int(__FILE__, __LINE__);
}

struct Span {
  int64_t begin;
  int64_t size;
  int64_t end() const { return begin + size; }
};

struct Block {
  Span items;
  Span heads;
  Span queries;
  Span keys;

  // The parts of tensors [..., items, heads, queries, width], [..., items, heads, keys, width] and
  // [..., items, heads, queries, keys] that belong to it. Dimensions of size one are shared by all.
  Tensor of_queries(const Tensor& tensor) const;
  Tensor of_keys(const Tensor& tensor) const;
  Tensor of_scores(const Tensor& tensor) const;
};

// Cuts the scores of `query` with `key`, of which an operation holds `copies` at a time. Query q
// sees the keys up to q + `diagonal`, or all; blocks of which nothing is seen are left out, but not
// all those of one query or key.
std::vector<Block> blocks_of(const Tensor& query, const Tensor& key,
                             std::optional<int64_t> diagonal, int64_t copies);

// Sums of what blocks that share queries (or keys) contribute to these, and all such sums in place.
class BlockSums {
 public:
  explicit BlockSums(Span Block::* side) : side_(side) {}

  void add(const Block& block, Tensor term);
  // Undefined, that is zero, if nothing was added.
  Tensor total() const;

 private:
  Span Block::* side_;
  // By the place of item, head, and query or key.
  std::map<std::array<int64_t, 3>, Tensor> sums_;
};

}  // namespace functx
