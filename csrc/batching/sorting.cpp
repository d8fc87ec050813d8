// Sorting along a dim and searching in what is sorted.
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>

#include "batching/dims.h"
#include "batching/rule.h"

namespace functx {
namespace {

using Pair = std::tuple<Batched, Batched>;

// `call(value, dim)` gives values and indices; a scalar example borrows a dimension.
template <class Call>
Pair sorted(const Batched& self, int64_t dim, Call call) {
  const bool is_scalar = self.is_batched && self.logical_dim() == 0;
  const int64_t physical = physical_dim(is_scalar ? c10::maybe_wrap_dim(dim, 0) : dim,
                                        std::max<int64_t>(self.logical_dim(), 1), self.is_batched);
  auto [values, indices] = call(is_scalar ? self.value.unsqueeze(1) : self.value, physical);
  if (is_scalar) {
    values = values.squeeze(1);
    indices = indices.squeeze(1);
  }
  return {{std::move(values), self.is_batched}, {std::move(indices), self.is_batched}};
}

Pair sort_stable(const Batched& self, std::optional<bool> stable, int64_t dim, bool descending) {
  return sorted(self, dim, [&](const Tensor& value, int64_t physical) {
    return ops::sort_stable::call(value, stable, physical, descending);
  });
}

Pair topk(const Batched& self, const c10::SymInt& k, int64_t dim, bool largest, bool in_order) {
  return sorted(self, dim, [&](const Tensor& value, int64_t physical) {
    return ops::topk::call(value, k, physical, largest, in_order);
  });
}

Pair kthvalue(const Batched& self, const c10::SymInt& k, int64_t dim, bool keepdim) {
  const bool keeps = keepdim || (self.is_batched && self.logical_dim() == 0);
  return sorted(self, dim, [&](const Tensor& value, int64_t physical) {
    return ops::kthvalue::call(value, k, physical, keeps);
  });
}

Batched count_nonzero_dims(const Batched& self, at::IntArrayRef dims) {
  if (!self.is_batched) {
    return {ops::count_nonzero_dim_IntList::call(self.value, dims), false};
  }
  if (self.logical_dim() == 0) {
    for (const int64_t dim : dims) {
      c10::maybe_wrap_dim(dim, 0);
    }
    return {self.value.ne(0).to(at::kLong), true};
  }
  return {self.value.ne(0).sum(dims.empty() ? all_physical_dims(self) : physical_dims(self, dims)),
          true};
}

Batched count_nonzero(const Batched& self, std::optional<int64_t> dim) {
  return count_nonzero_dims(self, dim ? at::IntArrayRef(*dim) : at::IntArrayRef());
}

// A sequence of rank 1 is searched for all values, one of higher rank row by row. What is batched
// becomes rows.
Batched searchsorted(const Batched& sequence, const Batched& self, bool out_int32, bool right,
                     std::optional<c10::string_view> side, const Batched& sorter) {
  const auto call = [&](const Tensor& rows, const Tensor& values,
                        const std::optional<Tensor>& order) {
    return ops::searchsorted_Tensor::call(rows, values, out_int32, right, side, order);
  };
  const bool owns_rows = sequence.is_batched || (sorter.defined() && sorter.is_batched);
  const auto order = [&](std::optional<int64_t> size) -> std::optional<Tensor> {
    if (!sorter.defined()) {
      return std::nullopt;
    }
    return size ? ensure_batched(sorter, *size).contiguous() : sorter.value;
  };
  if (!owns_rows && (sequence.value.dim() == 1 || !self.is_batched)) {
    return {call(sequence.value, self.value, order(std::nullopt)), self.is_batched};
  }
  const int64_t size =
      owns_rows ? batch_size(sequence.is_batched ? sequence : sorter) : batch_size(self);
  const Tensor rows = ensure_batched(sequence, size).contiguous();
  const Tensor values = ensure_batched(self, size);
  if (sequence.logical_dim() > 1) {
    return {call(rows, values.contiguous(), order(size)), true};
  }
  const Tensor flat = values.dim() == 1 ? values.unsqueeze(1) : values.flatten(1);
  return {call(rows, flat.contiguous(), order(size)).view(values.sizes()), true};
}

Tensor as_tensor(const at::Scalar& scalar, const Tensor& like) {
  const bool is_fraction = scalar.isFloatingPoint() && !like.is_floating_point();
  return at::full({}, scalar, like.options().dtype(is_fraction ? at::kDouble : like.scalar_type()));
}

Batched searchsorted_scalar(const Batched& sequence, const at::Scalar& self, bool out_int32,
                            bool right, std::optional<c10::string_view> side,
                            const Batched& sorter) {
  const Tensor value = as_tensor(self, sequence.value);
  const bool is_mixed = value.scalar_type() != sequence.value.scalar_type();
  const Batched rows{is_mixed ? sequence.value.to(value.scalar_type()) : sequence.value,
                     sequence.is_batched};
  return searchsorted(rows, {value, false}, out_int32, right, side, sorter);
}

Batched bucketize(const Batched& self, const Batched& boundaries, bool out_int32, bool right) {
  TORCH_CHECK(boundaries.logical_dim() == 1, "boundaries tensor must be 1 dimension, but got dim(",
              boundaries.logical_dim(), ")");
  return searchsorted(boundaries, self, out_int32, right, std::nullopt, {});
}

Batched bucketize_scalar(const at::Scalar& self, const Batched& boundaries, bool out_int32,
                         bool right) {
  return searchsorted_scalar(boundaries, self, out_int32, right, std::nullopt, {});
}

Tensor inverted_if(bool invert, const Tensor& found) {
  return invert ? found.logical_not() : found;
}

Batched isin(const Batched& elements, const Batched& test, bool assume_unique, bool invert) {
  if (!test.is_batched) {
    return {ops::isin_Tensor_Tensor::call(elements.value, test.value,
                                          assume_unique && !elements.is_batched, invert),
            elements.is_batched};
  }
  const int64_t rank = elements.logical_dim() + 1;
  const Tensor tests = test.value.dim() == 1 ? test.value.unsqueeze(1) : test.value.flatten(1);
  const Tensor all = align_rank({tests, true}, rank);
  return {inverted_if(invert, elements.value.unsqueeze(-1).eq(all).any(-1)), true};
}

Batched isin_scalar_in(const at::Scalar& element, const Batched& test, bool, bool invert) {
  if (!test.is_batched) {
    return {ops::isin_Scalar_Tensor::call(element, test.value, false, invert), false};
  }
  const Tensor found = test.value.eq(element);
  return {inverted_if(invert, found.dim() == 1 ? found : found.flatten(1).any(1)), true};
}

Batched isin_scalar(const Batched& elements, const at::Scalar& test, bool, bool invert) {
  return {inverted_if(invert, elements.value.eq(test)), elements.is_batched};
}

}  // namespace

FUNCTX_RULES(sorting) {
  batching_rule<ops::sort_stable, sort_stable>();
  batching_rule<ops::topk, topk>();
  batching_rule<ops::kthvalue, kthvalue>();
  batching_rule<ops::count_nonzero, count_nonzero>();
  batching_rule<ops::count_nonzero_dim_IntList, count_nonzero_dims>();
  batching_rule<ops::searchsorted_Tensor, searchsorted>();
  batching_rule<ops::searchsorted_Scalar, searchsorted_scalar>();
  batching_rule<ops::bucketize_Tensor, bucketize>();
  batching_rule<ops::bucketize_Scalar, bucketize_scalar>();
  batching_rule<ops::isin_Tensor_Tensor, isin>();
  batching_rule<ops::isin_Scalar_Tensor, isin_scalar_in>();
  batching_rule<ops::isin_Tensor_Scalar, isin_scalar>();
}

}  // namespace functx
