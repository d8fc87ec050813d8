#include "reverse_ad/ties.h"

#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <utility>

#include "batching/batched_tensor.h"
#include "forward_ad/dual_tensor.h"

namespace functx {
namespace {

TiesPtr all_ties(const Tensor& tensor);

// Without the place of `tensor` itself in a graph.
Ties inner_ties(const Tensor& tensor) {
  const Wrapper* wrapper = as_wrapper(tensor);
  if (wrapper == nullptr) {
    const bool has_meta = torch::autograd::impl::get_autograd_meta(tensor) != nullptr;
    return {{}, {}, has_meta ? tensor._fw_grad(/*level=*/0) : Tensor(), {}};
  }
  const auto values = wrapper->values();
  return {wrapper->level(), {}, values.size() > 1 ? values[1] : Tensor(), all_ties(values[0])};
}

TiesPtr null_if_none(Ties ties) {
  const bool has_any = ties.edge.is_valid() || ties.tangent.defined() || ties.value != nullptr;
  return has_any ? std::make_shared<const Ties>(std::move(ties)) : nullptr;
}

TiesPtr all_ties(const Tensor& tensor) {
  Ties ties = inner_ties(tensor);
  if (tensor.requires_grad()) {
    ties.edge = torch::autograd::impl::gradient_edge(tensor);
  }
  return null_if_none(std::move(ties));
}

Tensor tie_value(const Tensor& data, const TiesPtr& ties) {
  return ties != nullptr ? tie(data, *ties) : data;
}

Tensor tie_inner(const Tensor& data, const Ties& ties) {
  if (ties.level == nullptr) {
    return data;
  }
  if (ties.level->transform == Transform::Vmap) {
    const Batched batched = unwrap_batched(ties.level, data);
    return make_batched(ties.level, {tie_value(batched.value, ties.value), batched.is_batched});
  }
  const Dual dual = unwrap_dual(ties.level, data);
  return make_dual(ties.level,
                   {tie_value(dual.primal, ties.value), ties.tangent, /*owns_tangent=*/false});
}

}  // namespace

TiesPtr ties_below(const Tensor& saved) {
  return as_wrapper(saved) != nullptr ? null_if_none(inner_ties(saved)) : nullptr;
}

Tensor tie(const Tensor& data, const Ties& ties) {
  Tensor tied = tie_inner(data, ties);
  if (ties.edge.is_valid()) {
    tied = torch::autograd::make_variable(tied, ties.edge);
  }
  if (ties.level == nullptr && ties.tangent.defined()) {
    tied = ties.edge.is_valid() ? tied : tied.detach();
    tied._set_fw_grad(ties.tangent, /*level=*/0, /*is_inplace_op=*/false);
  }
  return tied;
}

}  // namespace functx
