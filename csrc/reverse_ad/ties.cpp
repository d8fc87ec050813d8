#include "reverse_ad/ties.h"

#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <utility>

#include "batching/batched_tensor.h"
#include "forward_ad/dual_tensor.h"

namespace functx {
namespace {

TiesPtr all_ties(const Tensor& tensor);

uint32_t version_of(const Tensor& tangent) {
  const bool has_version = tangent.defined() && !tangent.is_inference();
  return has_version ? tangent._version() : 0;
}

// Without the place of `tensor` itself in a graph.
Ties inner_ties(const Tensor& tensor) {
  const Wrapper* wrapper = as_wrapper(tensor);
  if (wrapper == nullptr) {
    const bool has_meta = torch::autograd::impl::get_autograd_meta(tensor) != nullptr;
    const Tensor tangent = has_meta ? tensor._fw_grad(/*level=*/0) : Tensor();
    return {{}, {}, tangent, version_of(tangent), {}};
  }
  const auto values = wrapper->values();
  const Tensor tangent = values.size() > 1 ? values[1] : Tensor();
  return {wrapper->level(), {}, tangent, version_of(tangent), all_ties(values[0])};
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

Tensor tangent_of(const Ties& ties, const Tensor& of_data) {
  if (version_of(ties.tangent) == ties.version) {
    return ties.tangent;
  }
  TORCH_CHECK(
      of_data.defined(),
      "functx: the tangent of a tensor that a saved-tensor hook detached was overwritten in "
      "place since. Write into a clone() of the tensor, or let the hook keep a clone().");
  return of_data;
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
  return make_dual(ties.level, {tie_value(dual.primal, ties.value), tangent_of(ties, dual.tangent),
                                /*owns_tangent=*/false});
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
    const Tensor tangent = tangent_of(ties, data._fw_grad(/*level=*/0));
    tied = ties.edge.is_valid() ? tied : tied.detach();
    tied._set_fw_grad(tangent, /*level=*/0, /*is_inplace_op=*/false);
  }
  return tied;
}

}  // namespace functx
