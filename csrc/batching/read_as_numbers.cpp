// Composite operators that read a tensor of numbers to know where to look: their results are views
// at places that are the same for every example, or none.
#include "batching/data_dependent.h"
#include "batching/rewrite.h"

namespace functx {
namespace {

std::optional<std::vector<Tensor>> tensor_split(const LevelPtr&, bool, const Tensor& self,
                                                const Tensor& places, int64_t dim) {
  if (as_wrapper(places) == nullptr) {
    return std::nullopt;
  }
  TORCH_CHECK(!differs_between_examples(places),
              "functx.vmap: tensor_split got a tensor of indices or sections that differs between "
              "examples: the shapes of its results depend on the data (data-dependent shape), and "
              "different shapes cannot be one batch. Call it outside vmap, or use masks, such as "
              "x * (torch.arange(n) < index).");
  return ops::tensor_split_tensor_indices_or_sections::call(self, innermost_value(places), dim);
}

std::optional<Tensor> narrow(const LevelPtr&, bool, const Tensor& self, int64_t dim,
                             const Tensor& start, const c10::SymInt& length) {
  if (as_wrapper(start) == nullptr) {
    return std::nullopt;
  }
  TORCH_CHECK(!differs_between_examples(start),
              "functx.vmap: narrow got a start that differs between examples: the result would be "
              "a view at a different place for each. Use x.index_select(dim, start + "
              "torch.arange(length)) or gather, which copy.");
  return ops::narrow_Tensor::call(self, dim, innermost_value(start), length);
}

}  // namespace

FUNCTX_RULES(read_as_numbers) {
  rewritten<ops::tensor_split_tensor_indices_or_sections, tensor_split>();
  rewritten<ops::narrow_Tensor, narrow>();
}

}  // namespace functx
