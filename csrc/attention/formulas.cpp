#include "attention/formulas.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>

#include <algorithm>
#include <limits>

#include "attention/blocks.h"

namespace functx {
namespace {

Tensor sum_of(const Tensor& left, const Tensor& right) {
  return left.defined() && right.defined() ? left.add(right) : left.defined() ? left : right;
}

Tensor scaled(const Tensor& tensor, double scale) {
  return tensor.defined() ? tensor.mul(scale) : tensor;
}

Tensor times(const Tensor& left, const Tensor& right) {
  return left.defined() && right.defined() ? left.mul(right) : Tensor();
}

// Sum over the width, for every query.
Tensor row_products(const Tensor& left, const Tensor& right) {
  return left.defined() && right.defined() ? left.mul(right).sum(-1, true) : Tensor();
}

Tensor minus(const Tensor& left, const Tensor& right) {
  return left.defined() && right.defined() ? left.sub(right) : right.defined() ? right.neg() : left;
}

// a b^T, a block at a time. `a` belongs to the queries and `b` to the keys; undefined: zero.
struct Product {
  Tensor a;
  Tensor b;

  Tensor at(const Block& block) const {
    return a.defined() ? block.of_queries(a).matmul(block.of_keys(b).transpose(-2, -1)) : Tensor();
  }
};

// Side by side, the narrower one repeated for the dimensions that the other has in front.
Tensor beside(const Tensor& left, const Tensor& right) {
  const auto like = [](const Tensor& tensor, const Tensor& other) {
    if (tensor.dim() >= other.dim()) {
      return tensor;
    }
    auto sizes = other.sym_sizes().vec();
    sizes.back() = tensor.sym_size(-1);
    return tensor.expand_symint(sizes);
  };
  return at::cat({like(left, right), like(right, left)}, -1);
}

// The tangent of a b^T, by one multiplication: a. b^T + a b.^T = [a., a] [b, b.]^T.
Product product_tangent(const Tensor& a, const Tensor& b, const Tensor& a_tangent,
                        const Tensor& b_tangent) {
  if (!a_tangent.defined()) {
    return b_tangent.defined() ? Product{a, b_tangent} : Product{};
  }
  return b_tangent.defined() ? Product{beside(a_tangent, a), beside(b, b_tangent)}
                             : Product{a_tangent, b};
}

// Adds left right, for the queries, or left^T right, for the keys.
void add_product(BlockSums& sums, const Block& block, const Tensor& left, const Tensor& right) {
  if (left.defined() && right.defined()) {
    sums.add(block, left.matmul(right));
  }
}

Tensor flipped(const Tensor& tensor) {
  return tensor.defined() ? tensor.transpose(-2, -1) : tensor;
}

constexpr double kHidden = -std::numeric_limits<double>::infinity();

class Scores {
 public:
  Scores(const AttentionTensors& x, const Scoring& scoring)
      : query_(scaled(x.query, scoring.scale)),
        key_(x.key),
        mask_(x.mask),
        logsumexp_(x.logsumexp),
        diagonal_(scoring.diagonal) {}

  const Tensor& query() const { return query_; }

  Tensor at(const Block& block) const {
    const Tensor scores = Product{query_, key_}.at(block);
    return mask_.defined() ? hide_future(masked(scores, block.of_scores(mask_)), block)
                           : hide_future(scores, block);
  }

  Tensor probabilities(const Block& block) const {
    return at(block).sub(block.of_queries(logsumexp_)).exp();
  }

 private:
  static Tensor masked(const Tensor& scores, const Tensor& mask) {
    return mask.scalar_type() == at::kBool ? scores.masked_fill(mask.logical_not(), kHidden)
                                           : scores.add(mask);
  }

  Tensor hide_future(const Tensor& scores, const Block& block) const {
    if (!diagonal_) {
      return scores;
    }
    const int64_t first_hidden = block.queries.begin + *diagonal_ + 1;
    if (block.keys.end() <= first_hidden) {
      return scores;
    }
    const auto options = at::TensorOptions(scores.device()).dtype(at::kBool);
    const Tensor future = at::ones({block.queries.size, block.keys.size}, options)
                              .triu(first_hidden - block.keys.begin);
    return scores.masked_fill(future, kHidden);
  }

  Tensor query_;
  Tensor key_;
  Tensor mask_;
  Tensor logsumexp_;
  std::optional<int64_t> diagonal_;
};

class ScoresTangent {
 public:
  ScoresTangent(const Scores& scores, const AttentionTensors& x, const AttentionTensors& t,
                const Scoring& scoring)
      : query_(scaled(t.query, scoring.scale)),
        product_(product_tangent(scores.query(), x.key, query_, t.key)),
        mask_(t.mask) {}

  const Tensor& query() const { return query_; }

  Tensor at(const Block& block) const {
    return sum_of(product_.at(block), mask_.defined() ? block.of_scores(mask_) : mask_);
  }

 private:
  Tensor query_;
  Product product_;
  Tensor mask_;
};

int64_t copies_of(const AttentionTensors& x, const AttentionTensors& t) {
  int64_t most = 1;
  const auto count = [&](const Tensor& tensor) {
    int64_t copies = 1;
    for (int64_t dim = 0; tensor.defined() && dim < tensor.dim() - 4; ++dim) {
      copies *= size_of(tensor, dim);
    }
    most = std::max(most, copies);
  };
  x.each(count);
  t.each(count);
  return most;
}

std::vector<Block> blocks_for(const AttentionTensors& x, const AttentionTensors& t,
                              const Scoring& scoring) {
  return blocks_of(x.query, x.key, scoring.diagonal, copies_of(x, t));
}

Block whole(const AttentionTensors& x) {
  const auto all = [](const Tensor& tensor, int64_t dim) { return Span{0, size_of(tensor, dim)}; };
  return {all(x.query, -4), all(x.query, -3), all(x.query, -2), all(x.key, -2)};
}

Tensor of_queries(const Block& block, const Tensor& tensor) {
  return tensor.defined() ? block.of_queries(tensor) : tensor;
}

Tensor of_keys(const Block& block, const Tensor& tensor) {
  return tensor.defined() ? block.of_keys(tensor) : tensor;
}

// What the gradients are made of: p and ds, before the scale, with their tangents.
class BackwardScores {
 public:
  struct At {
    Tensor p, p_tangent;
    Tensor s, s_tangent;
  };

  BackwardScores(const AttentionTensors& x, const AttentionTensors& t, const Scoring& scoring)
      : scores_(x, scoring),
        scores_tangent_(scores_, x, t, scoring),
        logsumexp_tangent_(t.logsumexp),
        product_{x.grad, x.value},
        product_tangent_(product_tangent(x.grad, x.value, t.grad, t.value)),
        mean_(row_products(x.grad, x.output)),
        mean_tangent_(sum_of(row_products(t.grad, x.output), row_products(x.grad, t.output))) {}

  // Of the scores, with the scale in them.
  const Tensor& query() const { return scores_.query(); }
  const Tensor& query_tangent() const { return scores_tangent_.query(); }

  At at(const Block& block) const {
    const Tensor p = scores_.probabilities(block);
    const Tensor centered = product_.at(block).sub(block.of_queries(mean_));
    const Tensor p_tangent =
        times(p, minus(scores_tangent_.at(block), of_queries(block, logsumexp_tangent_)));
    const Tensor centered_tangent =
        minus(product_tangent_.at(block), of_queries(block, mean_tangent_));
    return {p, p_tangent, p.mul(centered),
            sum_of(times(p_tangent, centered), times(p, centered_tangent))};
  }

 private:
  Scores scores_;
  ScoresTangent scores_tangent_;
  Tensor logsumexp_tangent_;
  Product product_;
  Product product_tangent_;
  Tensor mean_;
  Tensor mean_tangent_;
};

}  // namespace

AttentionTensors AttentionTensors::of(const std::vector<Tensor>& tensors) {
  return {tensors.at(0), tensors.at(1), tensors.at(2), tensors.at(3),
          tensors.at(4), tensors.at(5), tensors.at(6)};
}

std::vector<Tensor> AttentionTensors::all() const {
  return {query, key, value, mask, output, logsumexp, grad};
}

// The mean sum(p * s.) is known only after the last block, so it comes out of the sum:
// sum(p * (s. - mean) v) = sum(p * s. v) - mean * o.
std::vector<Tensor> blockwise_jvp(const AttentionTensors& x, const AttentionTensors& t,
                                  const Scoring& scoring) {
  const Scores scores(x, scoring);
  const ScoresTangent scores_tangent(scores, x, t, scoring);
  BlockSums output(&Block::queries), tangent(&Block::queries), mean(&Block::queries);
  for (const Block& block : blocks_for(x, t, scoring)) {
    const Tensor p = scores.probabilities(block);
    if (const Tensor s = scores_tangent.at(block); s.defined()) {
      const Tensor change = p.mul(s);
      mean.add(block, change.sum(-1, true));
      add_product(tangent, block, change, block.of_keys(x.value));
    }
    if (!x.output.defined()) {
      add_product(output, block, p, block.of_keys(x.value));
    }
    add_product(tangent, block, p, of_keys(block, t.value));
  }
  if (x.output.defined()) {
    return {minus(tangent.total(), times(mean.total(), x.output)), mean.total()};
  }
  return {minus(tangent.total(), times(mean.total(), output.total())), mean.total(),
          output.total()};
}

// dq = scale ds k, dk = scale ds^T q and dv = p^T g.
std::vector<Tensor> blockwise_vjp(const AttentionTensors& x, const AttentionTensors& t,
                                  const Scoring& scoring) {
  const BackwardScores scores(x, {}, scoring);
  BlockSums query(&Block::queries), key(&Block::keys), value(&Block::keys);
  for (const Block& block : blocks_for(x, t, scoring)) {
    const auto at = scores.at(block);
    add_product(query, block, at.s, block.of_keys(x.key));
    add_product(key, block, flipped(at.s), block.of_queries(scores.query()));
    add_product(value, block, flipped(at.p), block.of_queries(x.grad));
  }
  return {scaled(query.total(), scoring.scale), key.total(), value.total()};
}

std::vector<Tensor> blockwise_vjp_jvp(const AttentionTensors& x, const AttentionTensors& t,
                                      const Scoring& scoring) {
  const BackwardScores scores(x, t, scoring);
  BlockSums query(&Block::queries), key(&Block::keys), value(&Block::keys);
  for (const Block& block : blocks_for(x, t, scoring)) {
    const auto at = scores.at(block);
    add_product(query, block, at.s_tangent, block.of_keys(x.key));
    add_product(query, block, at.s, of_keys(block, t.key));
    add_product(key, block, flipped(at.s_tangent), block.of_queries(scores.query()));
    add_product(key, block, flipped(at.s), of_queries(block, scores.query_tangent()));
    add_product(value, block, flipped(at.p_tangent), block.of_queries(x.grad));
    add_product(value, block, flipped(at.p), of_queries(block, t.grad));
  }
  return {scaled(query.total(), scoring.scale), key.total(), value.total()};
}

std::vector<Tensor> mask_vjp_jvp(const AttentionTensors& x, const AttentionTensors& t,
                                 const Scoring& scoring) {
  const auto at = BackwardScores(x, t, scoring).at(whole(x));
  const auto reduced = [&](const Tensor& s) {
    return s.defined() ? s.sum_to_size_symint(x.mask.sym_sizes()) : s;
  };
  return {reduced(at.s), reduced(at.s_tangent)};
}

// Where no key takes part, the largest score is -inf, and the sum of the probabilities zero.
AttentionTensors written_out(const AttentionTensors& x, const Scoring& scoring) {
  const Block block = whole(x);
  const Tensor scores = Scores(x, scoring).at(block);
  const Tensor largest = scores.detach().amax(-1, true);
  const Tensor origin = largest.masked_fill(largest.eq(kHidden), 0);
  const Tensor sum = scores.sub(origin).exp().sum(-1, true);
  AttentionTensors result = x;
  result.logsumexp = sum.masked_fill(sum.eq(0), 1).log().add(origin);
  result.output = scores.sub(result.logsumexp).exp().matmul(x.value);
  return result;
}

}  // namespace functx
