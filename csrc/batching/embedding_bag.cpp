// Bags of rows of a table. The batch becomes one long list of indices in one long table: the rows,
// the positions and the bags of an example are numbered after those of the example before.
#include <ATen/ops/arange.h>
#include <c10/core/ScalarType.h>

#include "batching/bags.h"
#include "batching/boxed_rules.h"
#include "batching/fold.h"

namespace functx {
namespace {

constexpr int64_t kMax = 2;

int64_t guarded(const c10::SymInt& size) { return size.guard_int(__FILE__, __LINE__); }

// [B, 1, ..], of `rank` dimensions: `step` times the number of the example.
Tensor first_of_each(const Tensor& like, int64_t size, int64_t step, int64_t rank) {
  std::vector<int64_t> shape(rank, 1);
  shape[0] = size;
  return at::arange(size, like.options().dtype(at::kLong)).view(shape).mul(step);
}

// The arguments of one call, folded.
class Bags {
 public:
  Bags(const Batched& indices, int64_t batch_size, int64_t padding_idx)
      : indices_(ensure_batched(indices, batch_size)),
        size_(batch_size),
        padding_idx_(padding_idx) {}

  // Numbers [B, n, ..] that count up to `step` in each example, and back.
  Tensor renumber(const Tensor& numbers, int64_t step) const {
    return numbers.add(first_of_each(numbers, size_, step, numbers.dim()));
  }
  Tensor number_back(const Tensor& numbers, int64_t step) const {
    return numbers.sub(first_of_each(numbers, size_, step, numbers.dim()))
        .to(numbers.scalar_type());
  }

  int64_t positions() const { return indices_.size(1); }

  // Indices into one table, or into one of `rows` rows for each example. Padding is one row.
  Tensor indices() const { return indices_.to(at::kLong).flatten(); }
  Tensor indices_into_tables_of(int64_t rows) const {
    const Tensor shifted = renumber(indices_, rows);
    if (padding_idx_ < 0) {
      return shifted.flatten();
    }
    return shifted.masked_fill(indices_.eq(padding_idx_), padding_idx_).flatten();
  }

  // The starts of `bags` bags for each example; where the end of the last is given as well, it is
  // left out.
  Tensor offsets(const Batched& offsets, int64_t bags) const {
    return renumber(ensure_batched(offsets, size_).narrow(1, 0, bags), positions()).flatten();
  }

  Tensor fold(const Batched& x) const { return ensure_batched(x, size_).flatten(0, 1); }

  std::optional<Tensor> weights_of_samples(const Batched& x) const {
    return x.defined() ? std::make_optional(fold(x)) : std::nullopt;
  }

  // The bag of each position. Empty where the kernels did without.
  Tensor bag_of_each(const Batched& offset2bag, int64_t bags) const {
    return renumber(ensure_batched(offset2bag, size_), bags).flatten();
  }

  // Which row had the maximum of each bag, if it had any.
  Tensor maximum_rows(const Batched& rows_of_max, const Batched& bag_sizes, int64_t rows) const {
    const Tensor each = ensure_batched(rows_of_max, size_);
    const Tensor is_empty = ensure_batched(bag_sizes, size_).narrow(1, 0, each.size(1)).le(0);
    return each.where(is_empty.unsqueeze(-1), renumber(each, rows)).flatten(0, 1);
  }

 private:
  Tensor indices_;
  int64_t size_;
  int64_t padding_idx_;
};

using Results = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Results pack(const LevelPtr& level, const Results& results, bool is_batched) {
  return std::apply(
      [&](const auto&... each) { return Results(make_batched(level, {each, is_batched})...); },
      results);
}

bool is_tracked(const Batched& x) {
  return x.defined() && (x.value.requires_grad() || as_wrapper(x.value) != nullptr);
}

Results embedding_bag(const LevelPtr& level, const Tensor& weight, const Tensor& indices,
                      const Tensor& offsets, bool scale_grad_by_freq, int64_t mode, bool sparse,
                      const std::optional<Tensor>& per_sample_weights, bool include_last_offset,
                      int64_t padding_idx) {
  using Op = ops::_embedding_bag;
  const Batched table = unwrap_batched(level, weight);
  const Batched picks = unwrap_batched(level, indices);
  const Batched starts = unwrap_batched(level, offsets);
  const Batched factors = detail::unpack(level, per_sample_weights);
  if (!detail::any_batched(table, picks, starts, factors)) {
    return pack(level,
                Op::call(table.value, picks.value, starts.value, scale_grad_by_freq, mode, sparse,
                         optional_value(factors), include_last_offset, padding_idx),
                false);
  }
  TORCH_CHECK(
      weight.dim() == 2 && indices.dim() == 1 && offsets.dim() == 1,
      "embedding_bag: expected a weight of two dimensions, indices and offsets of one, got ",
      weight.dim(), ", ", indices.dim(), " and ", offsets.dim());
  if (scale_grad_by_freq && (is_tracked(table) || is_tracked(factors))) {
    // The gradient divides by the frequencies of the rows: those of one example.
    return by_loop<Op>(weight, indices, offsets, scale_grad_by_freq, mode, sparse,
                       per_sample_weights, include_last_offset, padding_idx);
  }
  const int64_t size = level->batch_size;
  const int64_t rows = weight.size(0);
  const int64_t bags = offsets.size(0) - static_cast<int64_t>(include_last_offset);
  const Bags folded(picks, size, padding_idx);
  // The gradient of a folded table is dense: a sparse one could not be unfolded.
  auto [output, offset2bag, bag_size, max_indices] =
      Op::call(table.is_batched ? folded.fold(table) : table.value,
               table.is_batched ? folded.indices_into_tables_of(rows) : folded.indices(),
               folded.offsets(starts, bags), scale_grad_by_freq, mode, sparse && !table.is_batched,
               folded.weights_of_samples(factors), /*include_last_offset=*/false, padding_idx);
  const auto dtype = c10::promoteTypes(indices.scalar_type(), offsets.scalar_type());
  const auto unfold = [&](const Tensor& numbers) {
    const int64_t each = size == 0 ? 0 : numbers.size(0) / size;
    return numbers.to(dtype).unflatten(0, {size, each});
  };
  const Tensor sizes = unfold(bag_size);
  Tensor rows_of_max = unfold(max_indices);
  if (mode == kMax && table.is_batched) {
    rows_of_max =
        rows_of_max.where(sizes.le(0).unsqueeze(-1), folded.number_back(rows_of_max, rows));
  }
  return pack(level,
              {output.unflatten(0, {size, bags}), folded.number_back(unfold(offset2bag), bags),
               sizes, rows_of_max},
              true);
}

Tensor embedding_bag_dense_backward(const LevelPtr& level, const Tensor& grad,
                                    const Tensor& indices, const Tensor& offset2bag,
                                    const Tensor& bag_size, const Tensor& maximum_indices,
                                    c10::SymInt num_weights, bool scale_grad_by_freq, int64_t mode,
                                    const std::optional<Tensor>& per_sample_weights,
                                    int64_t padding_idx) {
  const Batched grads = unwrap_batched(level, grad);
  const Batched picks = unwrap_batched(level, indices);
  const Batched bag_of_each = unwrap_batched(level, offset2bag);
  const Batched sizes = unwrap_batched(level, bag_size);
  const Batched rows_of_max = unwrap_batched(level, maximum_indices);
  const Batched factors = detail::unpack(level, per_sample_weights);
  using Op = ops::_embedding_bag_dense_backward;
  if (!detail::any_batched(grads, picks, bag_of_each, sizes, rows_of_max, factors)) {
    return make_batched(
        level, {Op::call(grads.value, picks.value, bag_of_each.value, sizes.value,
                         rows_of_max.value, std::move(num_weights), scale_grad_by_freq, mode,
                         optional_value(factors), padding_idx),
                false});
  }
  if (scale_grad_by_freq) {
    // On a CPU PyTorch (to 2.13) divides by the frequency of another row than it should, by the
    // order in which rows come: only the same call gives the same numbers.
    return by_loop<Op>(grad, indices, offset2bag, bag_size, maximum_indices, std::move(num_weights),
                       scale_grad_by_freq, mode, per_sample_weights, padding_idx);
  }
  const int64_t size = level->batch_size;
  const int64_t rows = guarded(num_weights);
  const int64_t bags = grad.size(0);
  const Bags folded(picks, size, padding_idx);
  const Tensor result = Op::call(
      folded.fold(grads).contiguous(), folded.indices_into_tables_of(rows),
      folded.bag_of_each(bag_of_each, bags),
      ensure_batched(sizes, size)
          .narrow(1, 0, std::min(bags, bag_size.size(0)))
          .flatten()
          .to(at::kLong),
      mode == kMax ? folded.maximum_rows(rows_of_max, sizes, rows) : folded.fold(rows_of_max),
      rows * size, /*scale_grad_by_freq=*/false, mode, folded.weights_of_samples(factors),
      padding_idx);
  return make_batched(level, {result.unflatten(0, {size, rows}), true});
}

// The forward pass gives none where its kernel did without.
Tensor found_bags(const Tensor& indices, const Tensor& offsets, const Tensor& offset2bag) {
  return offset2bag.numel() > 0 || indices.numel() == 0
             ? offset2bag
             : bag_of_each_position(indices, offsets).to(indices.scalar_type());
}

// A sparse gradient is dense here: one for each example cannot be a batch.
Tensor embedding_bag_backward(const Tensor& grad, const Tensor& indices, const Tensor& offsets,
                              const Tensor& offset2bag, const Tensor& bag_size,
                              const Tensor& maximum_indices, c10::SymInt num_weights,
                              bool scale_grad_by_freq, int64_t mode, bool,
                              const std::optional<Tensor>& per_sample_weights,
                              int64_t padding_idx) {
  return ops::_embedding_bag_dense_backward::call(
      grad.contiguous(), indices.contiguous(), found_bags(indices, offsets, offset2bag), bag_size,
      maximum_indices, std::move(num_weights), scale_grad_by_freq, mode, per_sample_weights,
      padding_idx);
}

Tensor per_sample_weights_backward(const LevelPtr& level, const Tensor& grad, const Tensor& weight,
                                   const Tensor& indices, const Tensor& offsets,
                                   const Tensor& offset2bag, int64_t mode, int64_t padding_idx) {
  const Batched grads = unwrap_batched(level, grad);
  const Batched table = unwrap_batched(level, weight);
  const Batched picks = unwrap_batched(level, indices);
  const Batched starts = unwrap_batched(level, offsets);
  const Batched bag_of_each = unwrap_batched(level, offset2bag);
  using Op = ops::_embedding_bag_per_sample_weights_backward;
  if (!detail::any_batched(grads, table, picks, starts, bag_of_each)) {
    return make_batched(level, {Op::call(grads.value, table.value, picks.value, starts.value,
                                         bag_of_each.value, mode, padding_idx),
                                false});
  }
  const int64_t size = level->batch_size;
  const int64_t bags = grad.size(0);
  const Bags folded(picks, size, padding_idx);
  const Tensor result = Op::call(
      folded.fold(grads).contiguous(),
      table.is_batched ? folded.fold(table).contiguous() : table.value,
      table.is_batched ? folded.indices_into_tables_of(weight.size(0)) : folded.indices(),
      folded.offsets(starts, bags), folded.bag_of_each(bag_of_each, bags), mode, padding_idx);
  return make_batched(level, {result.unflatten(0, {size, folded.positions()}), true});
}

}  // namespace

FUNCTX_RULES(embedding_bag) {
  level_rule<ops::_embedding_bag>(embedding_bag);
  // What PyTorch calls for a weight without tape; the value inside may have one.
  level_rule<ops::_embedding_bag_forward_only>(embedding_bag);
  boxed_batching_rule({"aten::_embedding_bag"}, loop_silently);
  batching_decomposition<ops::_embedding_bag_backward, embedding_bag_backward>();
  level_rule<ops::_embedding_bag_dense_backward>(embedding_bag_dense_backward);
  level_rule<ops::_embedding_bag_per_sample_weights_backward>(per_sample_weights_backward);
}

}  // namespace functx
