#include "reverse_ad/seed.h"

#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/functions/tensor.h>

#include "core/lift.h"
#include "core/tracked.h"
#include "reverse_ad/graph.h"

namespace functx {

bool writes_into_views(const std::vector<NodePtr>& roots, uint64_t least) {
  return reaches<torch::autograd::CopySlices>(roots, least);
}

Tensor seed(const Tensor& output, const Tensor& cotangent, const LevelPtr& stratum, bool in_full) {
  const Tensor value = detach_all(output);
  Tensor seed = cotangent.defined() ? cotangent : at::ones_like(value);
  // A wrapper of PyTorch's transforms is one inside of ours, or else outside; neither is written
  // to.
  if (!seed.key_set().has_any(kForeignWrapperKeys)) {
    seed = lift(seed, stratum);
  }
  if (in_full) {
    seed = seed.add(at::zeros_like(value));
  }
  return seed;
}

}  // namespace functx
