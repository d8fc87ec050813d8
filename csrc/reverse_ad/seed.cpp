#include "reverse_ad/seed.h"

#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/functions/tensor.h>

#include "reverse_ad/graph.h"
#include "reverse_ad/lift.h"
#include "reverse_ad/tracked.h"

namespace functx {

Tensor seed(const Tensor& output, const Tensor& cotangent, const LevelPtr& stratum) {
  const Tensor value = detach_all(output);
  Tensor seed = cotangent.defined() ? cotangent : at::ones_like(value);
  // A wrapper of PyTorch's transforms is one inside of ours, or else outside; neither is written
  // to.
  if (!seed.key_set().has_any(kForeignWrapperKeys)) {
    seed = lift(seed, stratum);
  }
  // The gradient of a write into a view is itself written into views, whose batch dimensions are
  // those of the cotangent: it needs all that the output has.
  if (stratum != nullptr && reaches<torch::autograd::CopySlices>(node_of(output))) {
    seed = seed.add(at::zeros_like(value));
  }
  return seed;
}

}  // namespace functx
