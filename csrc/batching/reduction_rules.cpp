#include "batching/by_loop.h"
#include "batching/reduction.h"

namespace functx {
namespace {

// The value of a scalar example borrows a dimension, as in along_dims; nothing is kept of it.
Batched at_least_1d(const Batched& self) {
  return self.logical_dim() == 0 ? Batched{self.value.unsqueeze(-1), self.is_batched} : self;
}

// A full reduction is a reduction of all dimensions but the batch's: each has an operator with
// dims. The batched value of a scalar example has nothing to reduce.
template <class Op, class Flat>
Batched over_all(const Batched& self, Flat reduce_last) {
  if (!self.is_batched) {
    return {Op::call(self.value), false};
  }
  return {reduce_last(self.value.dim() == 1 ? self.value.unsqueeze(1) : self.value.flatten(1)),
          true};
}

Batched sum(const Batched& self, std::optional<at::ScalarType> dtype) {
  if (self.is_batched && self.logical_dim() == 0) {
    // No dims would mean all of them.
    return {self.value.unsqueeze(1).sum(1, false, dtype), true};
  }
  return {ops::sum_dim_IntList::call(self.value, all_physical_dims(self), false, dtype),
          self.is_batched};
}

Batched mean(const Batched& self, std::optional<at::ScalarType> dtype) {
  if (self.logical_dim() == 0) {
    return {dtype ? self.value.to(*dtype) : self.value.clone(), self.is_batched};
  }
  return {ops::mean_dim::call(self.value, all_physical_dims(self), false, dtype), self.is_batched};
}

Batched prod(const Batched& self, std::optional<at::ScalarType> dtype) {
  if (!self.is_batched) {
    return {self.value.prod(dtype), false};
  }
  const Tensor flat = self.logical_dim() == 0 ? self.value.unsqueeze(1) : self.value.flatten(1);
  return {flat.prod(1, false, dtype), true};
}

template <class Op, class OpDim>
Batched extremum(const Batched& self) {
  return over_all<Op>(self, [](const Tensor& flat) { return OpDim::call(flat, {1}, false); });
}

template <class Op, class OpDim>
Batched test_all(const Batched& self) {
  return over_all<Op>(self, [](const Tensor& flat) { return OpDim::call(flat, 1, false); });
}

// Without any dims, unlike with none given, every element is a test of its own.
template <class Op>
Tensor test_dims(const LevelPtr& level, const Tensor& self, at::OptionalIntArrayRef dims,
                 bool keepdim) {
  if (dims.has_value() && dims->empty()) {
    const Batched operand = unwrap_batched(level, self);
    return make_batched(level, {Op::call(operand.value, dims, keepdim), operand.is_batched});
  }
  return detail::AlongDims<Op>::call(level, self, dims, keepdim);
}

template <class Op, class OpDim>
Batched middle(const Batched& self) {
  return over_all<Op>(self,
                      [](const Tensor& flat) { return std::get<0>(OpDim::call(flat, 1, false)); });
}

template <class Op>
Batched index_of_extremum(const Batched& self, std::optional<int64_t> dim, bool keepdim) {
  if (!self.is_batched) {
    return {Op::call(self.value, dim, keepdim), false};
  }
  const std::optional<int64_t> physical =
      dim ? std::make_optional(physical_dim(self, *dim)) : std::nullopt;
  if (self.logical_dim() == 0) {
    return {self.value.new_zeros(self.value.sizes(), at::TensorOptions().dtype(at::kLong)), true};
  }
  if (physical.has_value()) {
    return {Op::call(self.value, physical, keepdim), true};
  }
  const Tensor index = Op::call(self.value.flatten(1), 1, false);
  return {keepdim ? align_rank({index, true}, self.logical_dim()) : index, true};
}

std::tuple<Batched, Batched> aminmax(const Batched& self, std::optional<int64_t> dim,
                                     bool keepdim) {
  if (!self.is_batched) {
    auto [low, high] = ops::aminmax::call(self.value, dim, keepdim);
    return {{std::move(low), false}, {std::move(high), false}};
  }
  const auto dims = dim ? at::DimVector{physical_dim(self, *dim)} : all_physical_dims(self);
  if (self.logical_dim() == 0) {
    return {{self.value.clone(), true}, {self.value.clone(), true}};
  }
  return {{self.value.amin(dims, keepdim), true}, {self.value.amax(dims, keepdim), true}};
}

Batched norm(const Batched& self, const at::Scalar& p) {
  if (self.is_batched && self.logical_dim() == 0) {
    return {ops::norm_ScalarOpt_dim::call(self.value.unsqueeze(1), p, {1}, false), true};
  }
  return {ops::norm_ScalarOpt_dim::call(self.value, p, all_physical_dims(self), false),
          self.is_batched};
}

Batched norm_dims(const Batched& self, const std::optional<at::Scalar>& p, at::IntArrayRef dims,
                  bool keepdim) {
  if (!self.is_batched) {
    return {ops::norm_ScalarOpt_dim::call(self.value, p, dims, keepdim), false};
  }
  const Batched x = at_least_1d(self);
  return {ops::norm_ScalarOpt_dim::call(x.value, p, detail::physical_dims_of(x, dims),
                                        keepdim && self.logical_dim() > 0),
          true};
}

Batched vector_norm(const Batched& self, const at::Scalar& p, at::OptionalIntArrayRef dims,
                    bool keepdim, std::optional<at::ScalarType> dtype) {
  if (!self.is_batched) {
    return {ops::linalg_vector_norm::call(self.value, p, dims, keepdim, dtype), false};
  }
  const Batched x = at_least_1d(self);
  if (dims.has_value() && !dims->empty()) {
    return {ops::linalg_vector_norm::call(x.value, p, physical_dims(x, *dims),
                                          keepdim && self.logical_dim() > 0, dtype),
            true};
  }
  // All dimensions are flattened first.
  const Tensor result = ops::linalg_vector_norm::call(x.value.flatten(1), p, {{1}}, false, dtype);
  return {keepdim ? align_rank({result, true}, self.logical_dim()) : result, true};
}

}  // namespace

FUNCTX_RULES(reductions) {
  along_dims<ops::sum_dim_IntList, ops::nansum, ops::mean_dim, ops::amax, ops::amin, ops::logsumexp,
             ops::prod_dim_int, ops::all_dim, ops::any_dim, ops::max_dim, ops::min_dim,
             ops::var_correction, ops::std_correction, ops::var_mean_correction,
             ops::std_mean_correction, ops::median_dim, ops::nanmedian_dim, ops::mode,
             ops::hash_tensor>();
  batching_rule<ops::sum, sum>();
  batching_rule<ops::mean, mean>();
  batching_rule<ops::prod, prod>();
  batching_rule<ops::max, extremum<ops::max, ops::amax>>();
  batching_rule<ops::min, extremum<ops::min, ops::amin>>();
  batching_rule<ops::all, test_all<ops::all, ops::all_dim>>();
  batching_rule<ops::any, test_all<ops::any, ops::any_dim>>();
  level_rule<ops::all_dims>(test_dims<ops::all_dims>);
  level_rule<ops::any_dims>(test_dims<ops::any_dims>);
  batching_rule<ops::median, middle<ops::median, ops::median_dim>>();
  batching_rule<ops::nanmedian, middle<ops::nanmedian, ops::nanmedian_dim>>();
  batching_rule<ops::argmax, index_of_extremum<ops::argmax>>();
  batching_rule<ops::argmin, index_of_extremum<ops::argmin>>();
  batching_rule<ops::aminmax, aminmax>();
  batching_rule<ops::norm_Scalar, norm>();
  batching_rule<ops::norm_ScalarOpt_dim, norm_dims>();
  batching_rule<ops::linalg_vector_norm, vector_norm>();
}

FUNCTX_RULES(scans) {
  along_dims<ops::cumsum, ops::cumprod, ops::logcumsumexp, ops::cummax, ops::cummin, ops::sort,
             ops::_softmax, ops::_log_softmax>();
}

}  // namespace functx
