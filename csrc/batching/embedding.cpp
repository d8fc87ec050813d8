// Rows of a table by number, their gradient and their norms.
#include <ATen/ops/arange.h>

#include "batching/boxed_rules.h"
#include "batching/by_loop.h"
#include "batching/data_dependent.h"
#include "batching/dims.h"
#include "batching/rows.h"
#include "batching/rule.h"

namespace functx {
namespace {

// The indices [B, ..] of one long table, in which each example has its own rows.
Tensor in_folded_table(const Batched& indices, int64_t size, const c10::SymInt& rows) {
  const Tensor each = ensure_batched(indices, size);
  std::vector<int64_t> shape(each.dim(), 1);
  shape[0] = size;
  const Tensor first = at::arange(size, each.options().dtype(at::kLong)).view(shape);
  return each.add(first.mul(rows.guard_int(__FILE__, __LINE__)));
}

bool is_tracked(const Tensor& value) { return value.requires_grad() || as_wrapper(value); }

// A table for each example.
Tensor rows_of_tables(const Tensor& tables, const Batched& indices) {
  at::DimVector size(indices.value.sizes());
  if (!indices.is_batched) {
    size.insert(size.begin(), tables.size(0));
    size.push_back(tables.size(2));
    return tables.index_select(1, indices.value.flatten()).view(size);
  }
  size.push_back(tables.size(2));
  return select_rows(tables, indices.value.reshape({tables.size(0), -1})).view(size);
}

// The row of a padding index is a constant to reverse mode.
Tensor without_gradient_at(const c10::SymInt& padding_idx, const Batched& indices,
                           const Tensor& rows) {
  const Tensor is_padding =
      indices.value.eq(padding_idx.guard_int(__FILE__, __LINE__)).unsqueeze(-1);
  return rows.detach().where(is_padding, rows);
}

Tensor embedding(const LevelPtr& level, const Tensor& weight, const Tensor& indices,
                 c10::SymInt padding_idx, bool scale_grad_by_freq, bool sparse) {
  using Op = ops::embedding;
  const Batched table = unwrap_batched(level, weight);
  const Batched picks = unwrap_batched(level, indices);
  const bool tracks_frequency = scale_grad_by_freq && picks.is_batched && is_tracked(table.value);
  if (!table.is_batched && !tracks_frequency) {
    return make_batched(
        level, {Op::call(table.value, picks.value, padding_idx, scale_grad_by_freq, sparse),
                picks.is_batched});
  }
  TORCH_CHECK(weight.dim() == 2, "'weight' must be 2-D");
  // The flags matter to the gradient only; a gather does not know them. That of a batch of tables
  // is dense.
  if (is_tracked(table.value) && scale_grad_by_freq) {
    return by_loop<Op>(weight, indices, padding_idx, scale_grad_by_freq, sparse);
  }
  const Tensor rows = rows_of_tables(table.value, picks);
  const bool hides_padding = is_tracked(table.value) && padding_idx >= 0;
  return make_batched(level,
                      {hides_padding ? without_gradient_at(padding_idx, picks, rows) : rows, true});
}

Batched embedding_dense_backward(const Batched& grad, const Batched& indices, c10::SymInt rows,
                                 c10::SymInt padding_idx, bool scale_grad_by_freq) {
  const auto size = common_batch_size({&grad, &indices});
  if (!indices.is_batched) {
    // The batch joins the columns.
    const Tensor columns =
        grad.is_batched ? fold_batch_into(grad.value, grad.logical_dim() - 1) : grad.value;
    const Tensor result = ops::embedding_dense_backward::call(columns, indices.value, rows,
                                                              padding_idx, scale_grad_by_freq);
    return {grad.is_batched ? unfold_batch_from(result, 1, *size) : result, grad.is_batched};
  }
  const Tensor is_padding = indices.value.eq(padding_idx.guard_int(__FILE__, __LINE__));
  const Tensor grads =
      ensure_batched(grad, *size).masked_fill(is_padding.unsqueeze(-1), 0).contiguous();
  const Tensor result = ops::embedding_dense_backward::call(
      grads, in_folded_table(indices, *size, rows), rows * *size, -1, scale_grad_by_freq);
  return {result.unflatten(0, {*size, -1}), true};
}

// Scales rows down to a norm: one long table of all tables. Rows do not depend on each other and
// scaling them again changes nothing, so a table that all examples share can take it too.
Tensor& embedding_renorm_(const LevelPtr& level, Tensor& self, const Tensor& indices,
                          double max_norm, double norm_type) {
  using Op = ops::embedding_renorm_;
  Batched table = unwrap_batched(level, self);
  const Batched picks = unwrap_batched(level, indices);
  TORCH_CHECK(self.dim() == 2, "'self' must be 2-D");
  if (!table.is_batched) {
    Op::call(table.value, picks.value.contiguous(), max_norm, norm_type);
    return self;
  }
  const int64_t size = level->batch_size;
  const Tensor rows = in_folded_table(picks, size, self.sym_size(0));
  if (table.value.is_contiguous()) {
    Tensor folded = table.value.view_symint({-1, self.sym_size(1)});
    Op::call(folded, rows, max_norm, norm_type);
  } else {
    const Tensor folded =
        ops::embedding_renorm::call(table.value.flatten(0, 1), rows, max_norm, norm_type);
    table.value.copy_(folded.view_symint(table.value.sym_sizes()));
  }
  return self;
}

Batched embedding_renorm(const Batched& self, const Batched& indices, double max_norm,
                         double norm_type) {
  TORCH_CHECK(self.logical_dim() == 2, "'self' must be 2-D");
  using Op = ops::embedding_renorm;
  const auto size = common_batch_size({&self, &indices});
  if (!size) {
    return {Op::call(self.value, indices.value, max_norm, norm_type), false};
  }
  const Tensor tables = ensure_batched(self, *size);
  const Tensor result =
      Op::call(tables.flatten(0, 1), in_folded_table(indices, *size, tables.sym_size(1)), max_norm,
               norm_type);
  return {result.view_symint(tables.sym_sizes()), true};
}

// Without a number of classes there is one more than the largest index of an example.
Batched one_hot(const Batched& self, int64_t classes) {
  if (self.is_batched && classes < 0 && self.value.numel() > 0) {
    const Tensor largest = self.value.reshape({batch_size(self), -1}).amax(1);
    classes = common_count(largest.add(1), "one_hot without num_classes",
                           "Pass an explicit positive num_classes.");
  }
  return {ops::one_hot::call(self.value, classes), self.is_batched};
}

}  // namespace

FUNCTX_RULES(embedding) {
  batching_rule<ops::one_hot, one_hot>();
  level_rule<ops::embedding_renorm_>(embedding_renorm_);
  batching_rule<ops::embedding_renorm, embedding_renorm>();
  level_rule<ops::embedding>(embedding);
  boxed_batching_rule({"aten::embedding"}, loop_silently);
  batching_rule<ops::embedding_dense_backward, embedding_dense_backward>();
}

}  // namespace functx
