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
    const Tensor tangent = has_meta ? tensor._fw_grad(/*level=*/0) : Tensor();
    return {{}, {}, tangent, {}, all_ties(tangent)};
  }
  const auto values = wrapper->values();
  const Tensor tangent = values.size() > 1 ? values[1] : Tensor();
  return {wrapper->level(), {}, tangent, all_ties(values[0]), all_ties(tangent)};
}

TiesPtr null_if_none(Ties ties) {
  const bool has_any = ties.edge.is_valid() || ties.tangent.defined() || ties.value != nullptr;
  return has_any ? std::make_shared<const Ties>(std::move(ties)) : nullptr;
}

TiesPtr all_ties(const Tensor& tensor) {
  if (!tensor.defined()) {
    return nullptr;
  }
  Ties ties = inner_ties(tensor);
  if (tensor.requires_grad()) {
    ties.edge = torch::autograd::impl::gradient_edge(tensor);
  }
  return null_if_none(std::move(ties));
}

Tensor tie(const Tensor& data, const Ties& ties, bool overwritten);

Tensor tie_value(const Tensor& data, const TiesPtr& ties, bool overwritten) {
  return ties != nullptr ? tie(data, *ties, overwritten) : data;
}

// That of the saved tensor, or `of_data` with its ties if it has another now.
Tensor tangent_of(const Ties& ties, const Tensor& of_data, bool overwritten) {
  if (!overwritten || !ties.tangent.defined()) {
    return ties.tangent;
  }
  TORCH_CHECK(
      of_data.defined(),
      "functx: the tangent of a tensor that a saved-tensor hook detached was overwritten in "
      "place since. Write into a clone() of the tensor, or let the hook keep a clone().");
  return tie_value(of_data, ties.of_tangent, overwritten);
}

Tensor tie_inner(const Tensor& data, const Ties& ties, bool overwritten) {
  if (ties.level == nullptr) {
    return data;
  }
  if (ties.level->transform == Transform::Vmap) {
    const Batched batched = unwrap_batched(ties.level, data);
    return make_batched(ties.level,
                        {tie_value(batched.value, ties.value, overwritten), batched.is_batched});
  }
  const Dual dual = unwrap_dual(ties.level, data);
  return make_dual(ties.level,
                   {tie_value(dual.primal, ties.value, overwritten),
                    tangent_of(ties, dual.tangent, overwritten), /*owns_tangent=*/false});
}

Tensor tie(const Tensor& data, const Ties& ties, bool overwritten) {
  Tensor tied = tie_inner(data, ties, overwritten);
  if (ties.edge.is_valid()) {
    tied = torch::autograd::make_variable(tied, ties.edge);
  }
  if (ties.level == nullptr && ties.tangent.defined()) {
    const Tensor tangent = tangent_of(ties, data._fw_grad(/*level=*/0), overwritten);
    tied = ties.edge.is_valid() ? tied : tied.detach();
    tied._set_fw_grad(tangent, /*level=*/0, /*is_inplace_op=*/false);
  }
  return tied;
}

// A copy that a hook made inside of another transform can be a wrapper of that one.
Tensor as_saved_at(const LevelPtr& level, Tensor data) {
  for (Wrapper* wrapper = as_wrapper(data);
       wrapper != nullptr && wrapper->level() != level && wrapper->is_its_value();
       wrapper = as_wrapper(data)) {
    data = wrapper->values()[0];
  }
  return data;
}

}  // namespace

TiesPtr ties_below(const Tensor& saved) {
  if (as_wrapper(saved) == nullptr) {
    return nullptr;
  }
  Ties ties = inner_ties(saved);
  ties.writes = saved.unsafeGetTensorImpl()->version_counter();
  ties.version = ties.writes.current_version();
  return std::make_shared<const Ties>(std::move(ties));
}

Tensor tie(const Tensor& data, const TiesPtr& ties) {
  if (ties == nullptr) {
    return as_saved_at(nullptr, data);
  }
  return tie(as_saved_at(ties->level, data), *ties,
             /*overwritten=*/ties->writes.current_version() != ties->version);
}

}  // namespace functx
