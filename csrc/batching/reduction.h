// The family of operators that work along dims of their first argument: reductions, scans, sorts,
// softmax. One line registers one.
#pragma once

#include "batching/dims.h"
#include "batching/rule.h"

namespace functx {

namespace detail {

// The dims argument as it reads on the physical value.
inline int64_t physical_dims_of(const Batched& self, int64_t dim) {
  return physical_dim(self, dim);
}

inline at::DimVector physical_dims_of(const Batched& self, at::OptionalIntArrayRef dims) {
  return dims.has_value() && !dims->empty() ? physical_dims(self, *dims) : all_physical_dims(self);
}

inline at::DimVector physical_dims_of(const Batched& self, at::IntArrayRef dims) {
  return physical_dims_of(self, at::OptionalIntArrayRef(dims));
}

// A scalar example has dims 0 and -1, as in PyTorch: it borrows a dimension while the operator
// runs.
inline Tensor return_borrowed(Tensor result) {
  return result.dim() == 2 ? result.squeeze(1) : result;
}

template <class Op, class Signature = typename Op::schema>
struct AlongDims;

template <class Op, class Result, class Dims, class... Rest>
struct AlongDims<Op, Result(const Tensor&, Dims, Rest...)> {
  static Result call(const LevelPtr& level, const Tensor& self, Dims dims, Rest... rest) {
    Batched operand = unwrap_batched(level, self);
    if (!operand.is_batched) {
      return wrap(level, Op::call(operand.value, dims, rest...), false, false);
    }
    const bool is_scalar = operand.logical_dim() == 0;
    if (is_scalar) {
      operand.value = operand.value.unsqueeze(1);
    }
    return wrap(level, Op::call(operand.value, physical_dims_of(operand, dims), rest...), true,
                is_scalar);
  }

 private:
  static Tensor wrap(const LevelPtr& level, Tensor result, bool is_batched, bool is_scalar) {
    return make_batched(
        level, {is_scalar ? return_borrowed(std::move(result)) : std::move(result), is_batched});
  }

  template <class... Results>
  static auto wrap(const LevelPtr& level, std::tuple<Results...> results, bool is_batched,
                   bool is_scalar) {
    return std::apply(
        [&](auto&... each) {
          return std::make_tuple(wrap(level, std::move(each), is_batched, is_scalar)...);
        },
        results);
  }
};

}  // namespace detail

// Operators (self, dims, ...) whose dims are an int or a list of ints; an empty list or none means
// all dimensions.
template <class... Ops>
void along_dims() {
  ((Rules<Ops>::batching = &detail::AlongDims<Ops>::call, install_kernel<Ops>()), ...);
}

}  // namespace functx
