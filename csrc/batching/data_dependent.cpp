// Operators whose result is a Python number, or has a shape that depends on the data. A number that
// differs between examples has no answer; a shape may turn out the same for all of them.
#include "batching/data_dependent.h"

#include <ATen/ops/arange.h>

#include "batching/boxed_rules.h"
#include "batching/by_loop.h"
#include "batching/dims.h"
#include "batching/rewrite.h"
#include "forward_ad/dual_tensor.h"

namespace functx {
namespace {

// One value that all examples share has an answer. The tensors are unwrapped.
template <class... Tensors>
void check_shared(const char* call, const char* remedy, const Tensors&... tensors) {
  TORCH_CHECK(!detail::any_batched(tensors...), "functx.vmap: ", call,
              " was called on a tensor that differs between examples, and gives one answer for all "
              "of them. Use ",
              remedy, ", which gives one for each.");
}

at::Scalar local_scalar(const Batched& self) {
  TORCH_CHECK(
      !self.is_batched,
      "functx.vmap: It looks like you're calling .item() on a Tensor that differs between "
      "examples, directly or by float(x), int(x), range(x), torch.tensor([x]), a_list[x] or the "
      "like: it is not one number. Keep it a tensor (torch.stack makes one of several, "
      "x.index_select(0, i) takes an index i), or return it from the function.");
  return ops::_local_scalar_dense::call(self.value);
}

// PyTorch would go on to .item().
std::optional<bool> is_nonzero(const LevelPtr&, bool, const Tensor& self) {
  TORCH_CHECK(
      self.sym_numel() != 1 || !differs_between_examples(self),
      "functx.vmap: It looks like you're attempting to use a Tensor in some data-dependent control "
      "flow, by `if x:`, `while x:`, `not x`, max(x, y) or the like. It differs between examples, "
      "so it is neither true nor false. Compute both branches and choose with torch.where, or use "
      "torch.cond; torch.logical_not, torch.maximum and so on return tensors.");
  return std::nullopt;
}

bool equal(const Batched& self, const Batched& other) {
  check_shared("torch.equal", "(x == y).all()", self, other);
  return ops::equal::call(self.value, other.value);
}

bool allclose(const Batched& self, const Batched& other, double rtol, double atol, bool equal_nan) {
  check_shared("torch.allclose", "torch.isclose(x, y).all()", self, other);
  return ops::allclose::call(self.value, other.value, rtol, atol, equal_nan);
}

// Rows come out in the order of the examples.
Batched nonzero(const Batched& self) {
  if (!self.is_batched) {
    return {self.value.nonzero(), false};
  }
  const Tensor picks = self.value.ne(0);
  const int64_t count =
      common_count(self.logical_dim() > 0 ? picks.sum(all_physical_dims(self)) : picks, "nonzero");
  return {picks.nonzero().slice(1, 1).unflatten(0, {batch_size(self), count}), true};
}

// The indices that repeat: those of all examples one after the other, counted from the first of
// each.
Batched repeat_interleave(const Batched& repeats, std::optional<c10::SymInt> output_size) {
  if (!repeats.is_batched) {
    return {ops::repeat_interleave_Tensor::call(repeats.value, output_size), false};
  }
  TORCH_CHECK(repeats.logical_dim() == 1, "repeat_interleave only accepts a vector of repeats");
  const int64_t count = common_count(repeats.value.sum(1), "repeat_interleave");
  TORCH_CHECK(!output_size || *output_size == count, "repeat_interleave: output_size is ",
              *output_size, ", but the repeats add up to ", count);
  const Tensor rows =
      ops::repeat_interleave_Tensor::call(repeats.value.flatten(), count * batch_size(repeats));
  return {rows.remainder(repeats.value.size(1)).unflatten(0, {batch_size(repeats), count}), true};
}

// Example b counts in bins of its own, which begin at b times their number.
Batched bincount(const Batched& self, const Batched& weights, int64_t minlength) {
  const auto batch = common_batch_size({&self, &weights});
  const int64_t size = batch.value_or(1);
  TORCH_CHECK(self.logical_dim() == 1 && at::isIntegralType(self.value.scalar_type(), false),
              "bincount only supports 1-d non-negative integral inputs.");
  TORCH_CHECK(!weights.defined() ||
                  (weights.logical_dim() == 1 && weights.value.size(-1) == self.value.size(-1)),
              "bincount: weights should be 1-d and have the same length as input");
  const Tensor numbers = ensure_batched(self, size).to(at::kLong);
  int64_t bins = minlength;
  const Tensor all_numbers = innermost_value(numbers);
  if (all_numbers.numel() > 0) {
    TORCH_CHECK(all_numbers.min().item<int64_t>() >= 0,
                "bincount only supports 1-d non-negative integral inputs.");
    bins = common_count(numbers.amax(1).add(1).clamp_min(minlength), "bincount");
  }
  const Tensor first = at::arange(size, numbers.options()).mul(bins).unsqueeze(1);
  std::optional<Tensor> all_weights;
  if (weights.defined()) {
    all_weights = ensure_batched(weights, size).flatten();
  }
  const Tensor counts = ops::bincount::call(numbers.add(first).flatten(), all_weights, size * bins)
                            .unflatten(0, {size, bins});
  return {batch ? counts : counts.squeeze(0), batch.has_value()};
}

}  // namespace

bool differs_between_examples(const Tensor& tensor) {
  Wrapper* wrapper = as_wrapper(tensor);
  if (wrapper == nullptr) {
    return false;
  }
  const auto* batched = as_kind<BatchedTensor>(wrapper);
  return (batched != nullptr && batched->is_batched()) ||
         differs_between_examples(wrapper->values()[0]);
}

int64_t common_count(const Tensor& counts, const std::string& call, const char* remedy) {
  const Tensor all = innermost_value(counts);
  if (all.numel() == 0) {
    return 0;
  }
  const auto least = all.min().item<int64_t>();
  const auto most = all.max().item<int64_t>();
  TORCH_CHECK(least == most, "functx.vmap: the number of elements that ", call,
              " gives differs between examples (from ", least, " to ", most,
              "), and different shapes cannot be one batch: its result has a dynamic shape "
              "(data-dependent shape). ",
              remedy);
  return least;
}

FUNCTX_RULES(data_dependent) {
  batching_rule<ops::_local_scalar_dense, local_scalar>();
  rewritten<ops::is_nonzero, is_nonzero>();
  batching_rule<ops::equal, equal>();
  batching_rule<ops::allclose, allclose>();
  batching_rule<ops::nonzero, nonzero>();
  batching_rule<ops::repeat_interleave_Tensor, repeat_interleave>();
  level_rule<ops::bincount>([](const LevelPtr& level, const Tensor& self,
                               const std::optional<Tensor>& weights, auto minlength) {
    return make_batched(level, bincount(detail::unpack(level, self), detail::unpack(level, weights),
                                        c10::SymInt(minlength).guard_int(__FILE__, __LINE__)));
  });
  // A set for each example: there is nothing that sorts in segments.
  boxed_batching_rule({"aten::_unique", "aten::_unique2", "aten::unique_dim",
                       "aten::unique_consecutive", "aten::unique_dim_consecutive"},
                      loop_silently);
}

}  // namespace functx
