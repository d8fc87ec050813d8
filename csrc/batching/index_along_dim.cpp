// index_select, index_add and their kin: a vector of indices along one dim. An index that is the
// same for all examples passes through; one that differs becomes the index of gather or scatter.
#include <ATen/ops/where.h>

#include "batching/dims.h"
#include "batching/rewrite.h"
#include "batching/rows.h"

namespace functx {
namespace {

// The operands of one call with batched values; scalar examples borrow a dimension.
struct AlongDim {
  AlongDim(const Batched& x, int64_t logical_dim, const Batched& i, int64_t size)
      : self(borrow(ensure_batched(x, size))),
        index(i.logical_dim() == 0 ? i.value.unsqueeze(-1) : i.value),
        dim(physical_dim(logical_dim, std::max<int64_t>(x.logical_dim(), 1), true)),
        owns_index(i.is_batched),
        is_scalar(x.logical_dim() == 0) {
    TORCH_CHECK_INDEX(i.logical_dim() <= 1,
                      "Index is supposed to be a vector or a scalar, but it has ", i.logical_dim(),
                      " dimensions");
  }

  static Tensor borrow(const Tensor& value) {
    return value.dim() == 1 ? value.unsqueeze(1) : value;
  }

  // The batched index with one entry for each element of `like`, which it is to go with.
  Tensor spread_index(const Tensor& like) const {
    at::DimVector ones(like.dim(), 1);
    at::DimVector size(like.sizes());
    ones[0] = size[0] = index.size(0);
    ones[dim] = size[dim] = index.size(1);
    return index.reshape(ones).expand(size);
  }

  Batched result(const Tensor& value) const { return {is_scalar ? value.squeeze(1) : value, true}; }

  Tensor self;
  Tensor index;
  int64_t dim;
  bool owns_index;
  bool is_scalar;
};

Batched index_select(const Batched& self, int64_t dim, const Batched& index) {
  if (!self.is_batched && index.is_batched && self.logical_dim() > 0) {
    TORCH_CHECK_INDEX(index.logical_dim() <= 1, "index_select(): Index is supposed to be a vector");
    const int64_t wrapped = physical_dim(self, dim);
    const Tensor rows = self.value.index_select(wrapped, index.value.flatten());
    return {unfold_batch_from(rows, wrapped, batch_size(index)), true};
  }
  const auto size = common_batch_size({&self, &index});
  if (!size) {
    return {self.value.index_select(dim, index.value), false};
  }
  const AlongDim x(self, dim, index, *size);
  if (!x.owns_index) {
    return x.result(x.self.index_select(x.dim, x.index));
  }
  // Rows of several elements are copied as a whole.
  constexpr int64_t kShortRow = 4;
  const bool is_by_row =
      x.dim == 1 && x.self.sym_numel() > kShortRow * x.self.size(0) * x.self.size(1);
  return x.result(is_by_row ? select_rows(x.self, x.index)
                            : x.self.gather(x.dim, x.spread_index(x.self)));
}

// Into self goes source: `Shared` with an index that is the same for all examples, `Own` (a
// scatter) with one that is not.
template <class Shared, class Own>
struct Into {
  template <class... Rest>
  static Batched call(const Batched& self, int64_t dim, const Batched& index, const Batched& source,
                      const Rest&... rest) {
    const auto size = common_batch_size({&self, &index, &source});
    if (!size) {
      Tensor value = self.value;
      return {Shared::call(value, dim, index.value, source.value, rest...), false};
    }
    AlongDim x(self, dim, index, *size);
    const Tensor values = AlongDim::borrow(ensure_batched(source, *size));
    check_lengths(x, values);
    if (!x.owns_index) {
      return x.result(Shared::call(x.self, x.dim, x.index, values, rest...));
    }
    return x.result(scatter(x, values, rest...));
  }

 private:
  // Scatter would take a source that is too long.
  static void check_lengths(const AlongDim& x, const Tensor& values) {
    TORCH_CHECK_INDEX(x.index.size(-1) == values.size(x.dim), "Number of indices (",
                      x.index.size(-1), ") should be equal to source.size(dim): (",
                      values.size(x.dim), "), for dim: ", x.dim - 1);
    TORCH_CHECK(x.self.dim() == values.dim(), "source has ", values.dim() - 1,
                " dimensions, but self has ", x.self.dim() - 1);
    for (int64_t d = 0; d < values.dim(); ++d) {
      TORCH_CHECK(d == x.dim || values.size(d) == x.self.size(d), "source has size ",
                  values.size(d), " in dimension ", d - 1, ", but self has size ", x.self.size(d));
    }
  }

  // index_copy
  static Tensor scatter(AlongDim& x, const Tensor& values) {
    return Own::call(x.self, x.dim, x.spread_index(values), values);
  }
  // index_add
  static Tensor scatter(AlongDim& x, const Tensor& values, const at::Scalar& alpha) {
    return Own::call(x.self, x.dim, x.spread_index(values),
                     alpha.equal(1) ? values : values.mul(alpha).to(values.scalar_type()));
  }
  // index_reduce
  static Tensor scatter(AlongDim& x, const Tensor& values, c10::string_view reduce,
                        bool include_self) {
    return Own::call(x.self, x.dim, x.spread_index(values), values, reduce, include_self);
  }
};

template <class Shared, class Own, class... Rest>
Batched index_into(const Batched& self, int64_t dim, const Batched& index, const Batched& source,
                   const Rest&... rest) {
  return Into<Shared, Own>::call(self, dim, index, source, rest...);
}

template <class Shared, class Own, class... Rest>
void index_into_(const Batched& self, int64_t dim, const Batched& index, const Batched& source,
                 const Rest&... rest) {
  Into<Shared, Own>::call(self, dim, index, source, rest...);
}

// index_fill counts negative indices from the end, scatter does not know them.
Tensor from_start(const Tensor& index, int64_t size) {
  return index.where(index.ge(0), index.add(size));
}

template <class Fill, class Scatter>
Batched fill_value(const Batched& self, int64_t dim, const Batched& index,
                   const at::Scalar& value) {
  const auto size = common_batch_size({&self, &index});
  if (!size) {
    Tensor target = self.value;
    return {Fill::call(target, dim, index.value, value), false};
  }
  AlongDim x(self, dim, index, *size);
  if (!x.owns_index) {
    return x.result(Fill::call(x.self, x.dim, x.index, value));
  }
  const Tensor positions = from_start(x.spread_index(x.self), x.self.size(x.dim));
  return x.result(Scatter::call(x.self, x.dim, positions, value));
}

// Where `index` points to along a dim of length `size`.
Tensor mask_of(const Tensor& index, int64_t size) {
  const Tensor mask = index.new_zeros({index.size(0), size}, index.options().dtype(at::kBool));
  return mask.scatter(1, from_start(index, size), true);
}

// By a mask, under which an element counts once for the derivative, however often it is in the
// index.
template <class Fill>
Batched fill_tensor(const Batched& self, int64_t dim, const Batched& index, const Batched& value) {
  TORCH_CHECK(value.logical_dim() == 0, "index_fill_ only supports a 0-dimensional value tensor, ",
              "but got tensor with ", value.logical_dim(), " dimension(s).");
  const auto size = common_batch_size({&self, &index, &value});
  if (!size) {
    Tensor target = self.value;
    return {Fill::call(target, dim, index.value, value.value), false};
  }
  AlongDim x(self, dim, index, *size);
  if (!value.is_batched && !index.is_batched) {
    return x.result(Fill::call(x.self, x.dim, x.index, value.value));
  }
  const Tensor rows = x.owns_index ? x.index : x.index.unsqueeze(0);
  at::DimVector shape(x.self.dim(), 1);
  shape[0] = rows.size(0);
  shape[x.dim] = x.self.size(x.dim);
  const Tensor fill = align_rank(value, x.self.dim() - 1).to(x.self.scalar_type());
  return x.result(at::where(mask_of(rows, x.self.size(x.dim)).view(shape), fill, x.self));
}

template <class Fill, class Scatter>
void fill_value_(const Batched& self, int64_t dim, const Batched& index, const at::Scalar& value) {
  fill_value<Fill, Scatter>(self, dim, index, value);
}

void fill_tensor_(const Batched& self, int64_t dim, const Batched& index, const Batched& value) {
  if (value.is_batched || index.is_batched) {
    Tensor(self.value)
        .copy_(fill_tensor<ops::index_fill_int_Tensor>(self, dim, index, value).value);
  } else {
    fill_tensor<ops::index_fill__int_Tensor>(self, dim, index, value);
  }
}

// PyTorch's derivative by the value asks for the distinct entries of the index, and their number
// may differ between examples; that of masked_fill does not.
std::optional<Tensor> mask_to_record(const LevelPtr& level, bool records, const Tensor& self,
                                     int64_t dim, const Tensor& index) {
  if (level->transform != Transform::Vmap || !records || !unwrap_batched(level, index).is_batched) {
    return std::nullopt;
  }
  const int64_t size = self.dim() == 0 ? 1 : self.size(dim);
  const Tensor mask = index.new_zeros({size}, index.options().dtype(at::kBool));
  at::DimVector shape(self.dim(), 1);
  if (self.dim() > 0) {
    shape[c10::maybe_wrap_dim(dim, self.dim())] = size;
  }
  return mask.index_fill(0, index, true).view(shape);
}

std::optional<Tensor> masked_fill(const LevelPtr& level, bool records, const Tensor& self,
                                  int64_t dim, const Tensor& index, const Tensor& value) {
  const auto mask = mask_to_record(level, records, self, dim, index);
  return mask ? std::make_optional(self.masked_fill(*mask, value)) : std::nullopt;
}

bool masked_fill_(const LevelPtr& level, bool records, Tensor& self, int64_t dim,
                  const Tensor& index, const Tensor& value) {
  const auto mask = mask_to_record(level, records, self, dim, index);
  if (mask) {
    self.masked_fill_(*mask, value);
  }
  return mask.has_value();
}

}  // namespace

FUNCTX_RULES(index_along_dim) {
  using at::Scalar;
  using c10::string_view;
  batching_rule<ops::index_select, index_select>();
  batching_rule<ops::index_add, index_into<ops::index_add, ops::scatter_add, Scalar>>();
  batching_rule<ops::index_add_, index_into_<ops::index_add_, ops::scatter_add_, Scalar>>();
  batching_rule<ops::index_copy, index_into<ops::index_copy, ops::scatter_src>>();
  batching_rule<ops::index_copy_, index_into_<ops::index_copy_, ops::scatter__src>>();
  batching_rule<ops::index_reduce,
                index_into<ops::index_reduce, ops::scatter_reduce_two, string_view, bool>>();
  batching_rule<ops::index_reduce_,
                index_into_<ops::index_reduce_, ops::scatter_reduce__two, string_view, bool>>();
  batching_rule<ops::index_fill_int_Scalar,
                fill_value<ops::index_fill_int_Scalar, ops::scatter_value>>();
  batching_rule<ops::index_fill__int_Scalar,
                fill_value_<ops::index_fill__int_Scalar, ops::scatter__value>>();
  batching_rule<ops::index_fill_int_Tensor, fill_tensor<ops::index_fill_int_Tensor>>();
  batching_rule<ops::index_fill__int_Tensor, fill_tensor_>();
  rewritten<ops::index_fill_int_Tensor, masked_fill>();
  rewritten<ops::index_fill__int_Tensor, masked_fill_>();
}

}  // namespace functx
