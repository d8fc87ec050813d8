#include "attention/blocks.h"

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <cmath>

namespace functx {
namespace {

Tensor part_of(const Tensor& tensor, int64_t dim, Span span) {
  const int64_t size = size_of(tensor, dim);
  return size == 1 || size == span.size ? tensor : tensor.narrow(dim, span.begin, span.size);
}

// How many scores one block has at most, and how many matrices it takes to keep the device busy.
struct Limits {
  int64_t scores;
  int64_t matrices;
};

// On a CPU, as many scores as fit in the caches of the cores that share the work. A GPU has less
// work per launch to gain from locality than from size.
Limits limits_of(const Tensor& tensor) {
  constexpr int64_t kScoresPerCore = 1 << 17;
  constexpr int64_t kScoresOnDevice = 1 << 24;
  const int64_t threads = at::get_num_threads();
  return tensor.device().is_cpu() ? Limits{kScoresPerCore * threads, 2 * threads}
                                  : Limits{kScoresOnDevice, 64};
}

// Parts of about equal size, none larger than `largest`.
std::vector<Span> split(int64_t size, int64_t largest) {
  const int64_t parts = std::max<int64_t>(1, (size + largest - 1) / largest);
  std::vector<Span> spans;
  for (int64_t i = 0; i < parts; ++i) {
    const int64_t begin = size * i / parts;
    spans.push_back({begin, size * (i + 1) / parts - begin});
  }
  return spans;
}

}  // namespace

Tensor Block::of_queries(const Tensor& tensor) const {
  return part_of(part_of(part_of(tensor, -4, items), -3, heads), -2, queries);
}

Tensor Block::of_keys(const Tensor& tensor) const {
  return part_of(part_of(part_of(tensor, -4, items), -3, heads), -2, keys);
}

Tensor Block::of_scores(const Tensor& tensor) const {
  return part_of(of_queries(tensor), -1, keys);
}

std::vector<Block> blocks_of(const Tensor& query, const Tensor& key,
                             std::optional<int64_t> diagonal, int64_t copies) {
  constexpr int64_t kFewestScores = 64 * 64;
  const int64_t items = size_of(query, -4), heads = size_of(query, -3);
  const int64_t queries = size_of(query, -2), keys = size_of(key, -2);
  const auto [scores, matrices] = limits_of(query);
  const int64_t area =
      std::max(kFewestScores, scores / (copies * std::clamp<int64_t>(items * heads, 1, matrices)));
  const auto side = static_cast<int64_t>(std::sqrt(area));
  const auto at_most = [](int64_t size, int64_t limit) {
    return std::clamp<int64_t>(size, 1, limit);
  };
  // Where one side is short, the other may be longer.
  const int64_t columns = at_most(keys, area / at_most(queries, side));
  const int64_t rows = at_most(queries, area / columns);
  const int64_t heads_at_once =
      at_most(items * heads, std::max<int64_t>(1, scores / (copies * rows * columns)));

  const auto query_spans = split(queries, rows);
  const auto key_spans = split(keys, columns);
  std::vector<Block> blocks;
  for (const Span item :
       split(items, std::max<int64_t>(1, heads_at_once / std::max<int64_t>(1, heads)))) {
    for (const Span head : split(heads, heads_at_once)) {
      for (const Span row : query_spans) {
        for (const Span column : key_spans) {
          const bool is_seen = !diagonal || column.begin < row.end() + *diagonal;
          if (is_seen || column.begin == 0 || row.end() == queries) {
            blocks.push_back({item, head, row, column});
          }
        }
      }
    }
  }
  return blocks;
}

void BlockSums::add(const Block& block, Tensor term) {
  auto [sum, is_first] =
      sums_.try_emplace({block.items.begin, block.heads.begin, (block.*side_).begin}, term);
  if (!is_first) {
    sum->second = sum->second.add(term);
  }
}

// Joins neighbours in the last dimension, then rows of those in the one before, and so on.
Tensor BlockSums::total() const {
  auto parts = sums_;
  for (int position = 2; position >= 0 && parts.size() > 1; --position) {
    std::map<std::array<int64_t, 3>, std::vector<Tensor>> rows;
    for (const auto& [place, part] : parts) {
      auto row = place;
      row[position] = 0;
      rows[row].push_back(part);
    }
    parts.clear();
    for (const auto& [place, row] : rows) {
      parts.emplace(place, row.size() == 1 ? row.front() : at::cat(row, position - 4));
    }
  }
  return parts.empty() ? Tensor() : parts.begin()->second;
}

}  // namespace functx
