// Rows of a table, and sums, means and maxima of bags of rows. PyTorch defines the gradient by the
// table, and both modes have to agree on it: none reaches the row at `padding_idx`, and with
// `scale_grad_by_freq` that of a row is divided by how often the row is read.
#include "batching/bags.h"
#include "forward_ad/conform.h"
#include "forward_ad/rule.h"
#include "reverse_ad/recordable.h"

namespace functx {
namespace {

// Rows that are not read stay as they are.
Tensor divide_by_frequency(const Tensor& rows, const Tensor& indices) {
  const Tensor ones = rows.new_ones_symint(indices.sym_numel());
  const Tensor counts =
      rows.new_zeros_symint(rows.sym_size(0)).index_add(0, indices.reshape(-1), ones);
  return rows.div(counts.clamp_min(1).unsqueeze(-1));
}

Dual embedding(const Dual& weight, const Dual& indices, const c10::SymInt& padding_idx,
               bool scale_grad_by_freq, bool sparse) {
  const auto read = [&](const Tensor& rows) {
    return ops::embedding::call(rows, indices.primal, padding_idx, scale_grad_by_freq, sparse);
  };
  Tensor tangent = read(scale_grad_by_freq ? divide_by_frequency(weight.tangent, indices.primal)
                                           : weight.tangent);
  if (padding_idx >= 0) {
    const Tensor is_padding = indices.primal.eq(padding_idx.guard_int(__FILE__, __LINE__));
    tangent = tangent.masked_fill(is_padding.unsqueeze(-1), 0);
  }
  return {read(weight.primal), std::move(tangent)};
}

constexpr int64_t mean_mode = 1;
constexpr int64_t max_mode = 2;

// Also for the operator that PyTorch calls where it sees no gradient: that one leaves the places of
// the maxima out.
std::tuple<Dual, Tensor, Tensor, Tensor> embedding_bag(const Dual& weight, const Dual& indices,
                                                       const Dual& offsets, bool scale_grad_by_freq,
                                                       int64_t mode, bool sparse,
                                                       const Dual& per_sample_weights,
                                                       bool include_last_offset,
                                                       int64_t padding_idx) {
  const auto bags = [&](const Tensor& rows, const Tensor& factors) {
    return ops::_embedding_bag::call(rows, indices.primal, offsets.primal, scale_grad_by_freq, mode,
                                     sparse,
                                     factors.defined() ? std::make_optional(factors) : std::nullopt,
                                     include_last_offset, padding_idx);
  };
  auto [primal, bag_of_each, size, places] = bags(weight.primal, per_sample_weights.primal);
  Tensor tangent;
  if (weight.has_tangent() && mode == max_mode) {
    const Tensor rows = places.to(at::kLong).clamp_min(0);
    tangent = weight.tangent.gather(0, rows).masked_fill(size.eq(0).unsqueeze(-1), 0);
  } else if (weight.has_tangent()) {
    const Tensor rows =
        scale_grad_by_freq ? divide_by_frequency(weight.tangent, indices.primal) : weight.tangent;
    tangent = std::get<0>(bags(rows, per_sample_weights.primal));
  }
  if (per_sample_weights.has_tangent()) {
    tangent =
        sum_of(std::move(tangent), std::get<0>(bags(weight.primal, per_sample_weights.tangent)));
  }
  return {conform(std::move(tangent), std::move(primal)), std::move(bag_of_each), std::move(size),
          std::move(places)};
}

// The gradient by the table, dense like that of `embedding`: linear in the weights of samples as
// well.
Dual embedding_bag_backward(const Dual& grad, const Dual& indices, const Dual& offsets,
                            const Dual& bag_of_each, const Dual& size, const Dual& places,
                            const c10::SymInt& rows, bool scale_grad_by_freq, int64_t mode, bool,
                            const Dual& per_sample_weights, int64_t padding_idx) {
  const auto backward = [&](const Tensor& g, const Tensor& factors) {
    return ops::_embedding_bag_backward::call(
        g, indices.primal, offsets.primal, bag_of_each.primal, size.primal, places.primal, rows,
        scale_grad_by_freq, mode, /*sparse=*/false,
        factors.defined() ? std::make_optional(factors) : std::nullopt, padding_idx);
  };
  Tensor tangent;
  if (grad.has_tangent()) {
    tangent = backward(grad.tangent, per_sample_weights.primal);
  }
  if (per_sample_weights.has_tangent()) {
    tangent = sum_of(std::move(tangent), backward(grad.primal, per_sample_weights.tangent));
  }
  return {backward(grad.primal, per_sample_weights.primal), std::move(tangent)};
}

// The gradient by those weights.
Dual per_sample_weights_backward(const Dual& grad, const Dual& weight, const Dual& indices,
                                 const Dual& offsets, const Dual& bag_of_each, int64_t mode,
                                 int64_t padding_idx) {
  const auto backward = [&](const Tensor& g, const Tensor& table) {
    return ops::_embedding_bag_per_sample_weights_backward::call(
        g, table, indices.primal, offsets.primal, bag_of_each.primal, mode, padding_idx);
  };
  Tensor tangent;
  if (grad.has_tangent()) {
    tangent = backward(grad.tangent, weight.primal);
  }
  if (weight.has_tangent()) {
    tangent = sum_of(std::move(tangent), backward(grad.primal, weight.tangent));
  }
  return {backward(grad.primal, weight.primal), std::move(tangent)};
}

// ---- the same gradients, in operators that can be differentiated ----

// PyTorch's derivative of the gradient forgets the frequencies.
std::optional<Tensor> embedding_gradient(const Tensor& grad, const Tensor& indices,
                                         c10::SymInt rows, c10::SymInt padding_idx,
                                         bool scale_grad_by_freq) {
  if (!scale_grad_by_freq) {
    return std::nullopt;
  }
  const Tensor sums = ops::embedding_dense_backward::call(
      grad, indices, std::move(rows), std::move(padding_idx), /*scale_grad_by_freq=*/false);
  return divide_by_frequency(sums, indices);
}

// A sparse gradient is dense inside of a transform: the engine takes one for a strided tensor only
// if it is of the class of sparse tensors, and there are no derivatives of it.
std::optional<Tensor> dense_embedding_gradient(const LevelPtr&, bool, const Tensor& grad,
                                               const Tensor& indices, c10::SymInt rows,
                                               c10::SymInt padding_idx, bool scale_grad_by_freq,
                                               bool sparse) {
  if (!sparse) {
    return std::nullopt;
  }
  return ops::embedding_dense_backward::call(grad, indices, std::move(rows), std::move(padding_idx),
                                             scale_grad_by_freq);
}

// Likewise.
Tensor embedding_bag_gradient(const Tensor& grad, const Tensor& indices, const Tensor& offsets,
                              const Tensor&, const Tensor& size, const Tensor& places,
                              const c10::SymInt& rows, bool scale_grad_by_freq, int64_t mode, bool,
                              const std::optional<Tensor>& per_sample_weights,
                              int64_t padding_idx) {
  const Tensor table = grad.new_zeros_symint({rows, grad.sym_size(1)});
  if (mode == max_mode) {
    return table.scatter_add(0, places.to(at::kLong).clamp_min(0),
                             zero_unless(size.ne(0).unsqueeze(-1), grad));
  }
  const Tensor bags = bag_of_each_position(indices, offsets);
  Tensor terms = grad.index_select(0, bags);
  if (mode == mean_mode) {
    terms = terms.div(size.index_select(0, bags).unsqueeze(-1));
  }
  if (per_sample_weights.has_value() && per_sample_weights->defined()) {
    terms = terms.mul(per_sample_weights->unsqueeze(-1));
  }
  terms = terms.masked_fill(indices.eq(padding_idx).unsqueeze(-1), 0);
  const Tensor sums = table.index_add(0, indices, terms);
  return scale_grad_by_freq ? divide_by_frequency(sums, indices) : sums;
}

Tensor per_sample_weights_gradient(const Tensor& grad, const Tensor& weight, const Tensor& indices,
                                   const Tensor& offsets, const Tensor&, int64_t,
                                   int64_t padding_idx) {
  const Tensor terms = grad.index_select(0, bag_of_each_position(indices, offsets));
  return terms.mul(weight.index_select(0, indices)).sum(-1).masked_fill(indices.eq(padding_idx), 0);
}

}  // namespace

FUNCTX_RULES(gradients_of_embeddings) {
  rewritten<ops::embedding_backward, dense_embedding_gradient>();
  recordable<ops::embedding_dense_backward, embedding_gradient>();
  recordable<ops::_embedding_bag_backward, embedding_bag_gradient>();
  recordable<ops::_embedding_bag_per_sample_weights_backward, per_sample_weights_gradient>();
}

FUNCTX_RULES(jvp_embedding) {
  dual_rule<ops::embedding, embedding>();
  dual_rule<ops::_embedding_bag, embedding_bag>();
  dual_rule<ops::_embedding_bag_forward_only, embedding_bag>();
  dual_rule<ops::_embedding_bag_backward, embedding_bag_backward>();
  dual_rule<ops::_embedding_bag_per_sample_weights_backward, per_sample_weights_backward>();
}

}  // namespace functx
