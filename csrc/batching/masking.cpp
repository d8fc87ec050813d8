// Operators that pick elements by a mask or by their number in the flattened tensor.
#include <ATen/ExpandUtils.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>

#include "batching/data_dependent.h"
#include "batching/dims.h"
#include "batching/rule.h"

namespace functx {
namespace {

// [B, ...] as [B, n].
Tensor flatten_examples(const Tensor& value) {
  return value.dim() == 1 ? value.unsqueeze(1) : value.flatten(1);
}

void check_mask(const char* name, const Batched& mask) {
  TORCH_CHECK(mask.value.scalar_type() == at::kBool, name,
              " only supports boolean masks, but got mask with dtype ", mask.value.scalar_type());
}

Batched masked_fill(const Batched& self, const Batched& mask, const Batched& value) {
  TORCH_CHECK(value.logical_dim() == 0,
              "masked_fill only supports a 0-dimensional value tensor, but got tensor with ",
              value.logical_dim(), " dimension(s).");
  const int64_t rank = std::max(self.logical_dim(), mask.logical_dim());
  const bool batched = self.is_batched || mask.is_batched || value.is_batched;
  const Tensor target = align_rank(self, rank);
  const Tensor where = align_rank(mask, rank);
  if (!value.is_batched) {
    return {target.masked_fill(where, value.value), batched};
  }
  check_mask("masked_fill", mask);
  TORCH_CHECK(target.is_complex() || !value.value.is_complex(),
              "masked_fill: complex values cannot be converted to type ", target.scalar_type(),
              " without overflow. Use value.real.");
  return {at::where(where, align_rank(value, rank).to(target.scalar_type()), target), batched};
}

void masked_fill_(const Batched& self, const Batched& mask, const Batched& value) {
  Tensor target = self.value;
  if (value.is_batched) {
    target.copy_(masked_fill(self, mask, value).value);
  } else {
    target.masked_fill_(align_rank(mask, self.logical_dim()), value.value);
  }
}

// Self and mask broadcast against each other, without a batch dimension where they have none.
std::pair<Batched, Batched> broadcast(const Batched& self, const Batched& mask) {
  const auto shape_of = [](const Batched& x) {
    return x.value.sizes().slice(x.is_batched ? 1 : 0);
  };
  const auto shape = at::infer_size(shape_of(self), shape_of(mask));
  const auto expand = [&](const Batched& x) {
    std::vector<int64_t> size(shape);
    if (x.is_batched) {
      size.insert(size.begin(), batch_size(x));
    }
    return Batched{align_rank(x, static_cast<int64_t>(shape.size())).expand(size), x.is_batched};
  };
  return {expand(self), expand(mask)};
}

// A batch if the masks of all examples pick as many elements.
Batched masked_select(const Batched& self, const Batched& mask) {
  if (!self.is_batched && !mask.is_batched) {
    return {self.value.masked_select(mask.value), false};
  }
  const auto [target, where] = broadcast(self, mask);
  if (!mask.is_batched) {
    return {
        flatten_examples(target.value).index_select(1, where.value.flatten().nonzero().squeeze(1)),
        true};
  }
  const int64_t size = batch_size(mask);
  const Tensor picks = flatten_examples(where.value);
  const int64_t count = common_count(picks.sum(1), "masked_select");
  const Tensor values = flatten_examples(ensure_batched(target, size));
  return {values.masked_select(picks).unflatten(0, {size, count}), true};
}

// For each element of the mask, which of the true ones it is, or the one before.
Tensor ordinals(const Tensor& mask) { return mask.cumsum(1).sub(1).clamp_min(0); }

Batched masked_scatter(const Batched& self, const Batched& mask, const Batched& source) {
  const auto size = common_batch_size({&self, &mask, &source});
  if (!size) {
    return {self.value.masked_scatter(mask.value, source.value), false};
  }
  check_mask("masked_scatter", mask);
  TORCH_CHECK(self.value.scalar_type() == source.value.scalar_type(),
              "masked_scatter: expected self and source to have same dtypes but got ",
              self.value.scalar_type(), " and ", source.value.scalar_type());
  const auto [target, where] = broadcast(self, mask);
  const Tensor values = flatten_examples(ensure_batched(source, *size));
  const Tensor picks = flatten_examples(ensure_batched(where, *size));
  const Tensor full = ensure_batched(target, *size);
  Tensor result = flatten_examples(full);
  if (values.size(1) > 0) {
    result = at::where(picks, values.gather(1, ordinals(picks)), result);
  } else {
    TORCH_CHECK(result.numel() == 0 || !picks.any().item<bool>(),
                "masked_scatter: expected the source to have as many elements as the mask has true "
                "ones, but it has none");
  }
  return {result.reshape(full.sizes()), true};
}

void masked_scatter_(const Batched& self, const Batched& mask, const Batched& source) {
  Tensor target = self.value;
  if (self.is_batched) {
    target.copy_(masked_scatter(self, mask, source).value);
  } else {
    target.masked_scatter_(mask.value, source.value);
  }
}

Batched masked_scatter_backward(const Batched& grad, const Batched& mask,
                                c10::SymIntArrayRef sizes) {
  const auto size = common_batch_size({&grad, &mask});
  if (!size) {
    return {ops::masked_scatter_backward::call(grad.value, mask.value, sizes), false};
  }
  const auto [all, where] = broadcast(grad, mask);
  const Tensor picks = flatten_examples(ensure_batched(where, *size));
  const Tensor values = flatten_examples(ensure_batched(all, *size)).masked_fill(~picks, 0);
  const c10::SymInt count = c10::multiply_integers(sizes);
  const Tensor zeros = values.new_zeros_symint({c10::SymInt(*size), count});
  const Batched like{zeros, true};
  return {(values.size(1) > 0 ? zeros.scatter_add(1, ordinals(picks), values) : zeros)
              .view_symint(physical_size(like, sizes)),
          true};
}

// Each true element goes to the row of its ordinal, those that have none to one that is cut off.
Batched nonzero_static(const Batched& self, const c10::SymInt& rows, int64_t fill_value) {
  if (!self.is_batched) {
    return {ops::nonzero_static::call(self.value, rows, fill_value), false};
  }
  TORCH_CHECK(rows >= 0, "nonzero_static: 'size' must be an non-negative integer");
  const int64_t count = rows.guard_int(__FILE__, __LINE__);
  const Tensor picks = flatten_examples(self.value).ne(0);
  const Tensor slots = at::where(picks, ordinals(picks), count).clamp_max(count);
  const auto options = picks.options().dtype(at::kLong);
  const Tensor positions =
      picks.new_full({batch_size(self), count + 1}, -1, options)
          .scatter(1, slots, at::arange(picks.size(1), options).expand_as(slots))
          .slice(1, 0, count);
  // From the last dimension to the first, like the digits of a number.
  std::vector<Tensor> columns(self.logical_dim());
  Tensor rest = positions;
  for (int64_t d = self.logical_dim() - 1; d >= 0; --d) {
    const int64_t length = std::max<int64_t>(self.value.size(d + 1), 1);
    columns[d] = rest.remainder(length).masked_fill(positions.lt(0), fill_value);
    rest = rest.div(length, "trunc");
  }
  return {
      columns.empty() ? positions.new_empty({batch_size(self), count, 0}) : at::stack(columns, 2),
      true};
}

// Numbers may count from the end.
Tensor from_start(const Tensor& index, int64_t size) {
  return index.where(index.ge(0), index.add(size));
}

Batched take(const Batched& self, const Batched& index) {
  if (!self.is_batched) {
    return {self.value.take(index.value), index.is_batched};
  }
  const Tensor flat = flatten_examples(self.value);
  if (index.is_batched) {
    const Tensor picks = from_start(flatten_examples(index.value), flat.size(1));
    return {flat.gather(1, picks).view(index.value.sizes()), true};
  }
  at::DimVector size(index.value.sizes());
  size.insert(size.begin(), flat.size(0));
  return {flat.index_select(1, from_start(index.value.flatten(), flat.size(1))).view(size), true};
}

Batched put(const Batched& self, const Batched& index, const Batched& source, bool accumulate) {
  const auto size = common_batch_size({&self, &index, &source});
  if (!size) {
    return {self.value.put(index.value, source.value, accumulate), false};
  }
  const Tensor target = ensure_batched(self, *size);
  const Tensor flat = flatten_examples(target);
  const Tensor picks = from_start(flatten_examples(ensure_batched(index, *size)), flat.size(1));
  const Tensor values = flatten_examples(ensure_batched(source, *size));
  TORCH_CHECK_INDEX(
      picks.size(1) == values.size(1),
      "put_(): Expected source and index to have the same number of elements, but got "
      "source.numel() = ",
      values.size(1), ", index.numel() = ", picks.size(1));
  return {(accumulate ? flat.scatter_add(1, picks, values) : flat.scatter(1, picks, values))
              .view(target.sizes()),
          true};
}

void put_(const Batched& self, const Batched& index, const Batched& source, bool accumulate) {
  Tensor target = self.value;
  if (self.is_batched) {
    target.copy_(put(self, index, source, accumulate).value);
  } else {
    target.put_(index.value, source.value, accumulate);
  }
}

}  // namespace

FUNCTX_RULES(masking) {
  batching_rule<ops::masked_fill_Tensor, masked_fill>();
  batching_rule<ops::masked_fill__Tensor, masked_fill_>();
  batching_rule<ops::masked_select, masked_select>();
  batching_rule<ops::nonzero_static, nonzero_static>();
  batching_rule<ops::masked_scatter, masked_scatter>();
  batching_rule<ops::masked_scatter_, masked_scatter_>();
  batching_rule<ops::masked_scatter_backward, masked_scatter_backward>();
  batching_rule<ops::take, take>();
  batching_rule<ops::put, put>();
  batching_rule<ops::put_, put_>();
}

}  // namespace functx
