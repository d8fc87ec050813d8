// Rows of a table by number, and their gradient.
#include <ATen/ops/arange.h>
#include <ATen/ops/stack.h>

#include "batching/dims.h"
#include "batching/rows.h"
#include "batching/rule.h"

namespace functx {
namespace {

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

Batched embedding(const Batched& weight, const Batched& indices, c10::SymInt padding_idx,
                  bool scale_grad_by_freq, bool sparse) {
  const auto call = [&](const Tensor& table, const Tensor& rows) {
    return ops::embedding::call(table, rows, padding_idx, scale_grad_by_freq, sparse);
  };
  if (!weight.is_batched) {
    return {call(weight.value, indices.value), indices.is_batched};
  }
  TORCH_CHECK(weight.logical_dim() == 2, "'weight' must be 2-D");
  // The flags matter to the gradient only; a gather does not know them.
  if (!is_tracked(weight.value) || (padding_idx < 0 && !scale_grad_by_freq && !sparse)) {
    return {rows_of_tables(weight.value, indices), true};
  }
  std::vector<Tensor> examples;
  for (int64_t b = 0; b < batch_size(weight); ++b) {
    examples.push_back(call(weight.value.select(0, b),
                            indices.is_batched ? indices.value.select(0, b) : indices.value));
  }
  return {at::stack(examples), true};
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
  // One long table, in which each example has its own rows.
  at::DimVector shape(indices.value.dim(), 1);
  shape[0] = *size;
  const Tensor first = at::arange(*size, indices.value.options().dtype(at::kLong))
                           .view(shape)
                           .mul(rows.guard_int(__FILE__, __LINE__));
  const Tensor is_padding = indices.value.eq(padding_idx.guard_int(__FILE__, __LINE__));
  const Tensor grads =
      ensure_batched(grad, *size).masked_fill(is_padding.unsqueeze(-1), 0).contiguous();
  const Tensor result = ops::embedding_dense_backward::call(grads, indices.value.add(first),
                                                            rows * *size, -1, scale_grad_by_freq);
  return {result.unflatten(0, {*size, -1}), true};
}

Batched one_hot(const Batched& self, int64_t classes) {
  TORCH_CHECK(
      !self.is_batched || classes > 0,
      "functx.vmap: one_hot without num_classes has a result whose shape depends on the data "
      "of each example. Pass num_classes.");
  return {ops::one_hot::call(self.value, classes), self.is_batched};
}

}  // namespace

FUNCTX_RULES(embedding) {
  batching_rule<ops::one_hot, one_hot>();
  batching_rule<ops::embedding, embedding>();
  batching_rule<ops::embedding_dense_backward, embedding_dense_backward>();
}

}  // namespace functx
