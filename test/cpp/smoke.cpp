// The C++ core without Python: what a LibTorch program needs for vmap, checked against PyTorch.
#include <ATen/Functions.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdio>
#include <vector>

#include "batching/batched_tensor.h"
#include "core/level.h"

namespace {

using at::Tensor;

int failures = 0;

void check(bool holds, const char* what) {
  std::printf("%-4s %s\n", holds ? "ok" : "FAIL", what);
  failures += holds ? 0 : 1;
}

// What is differentiated and batched: a function of one example `x` and a weight.
Tensor loss(const Tensor& x, const Tensor& weight) { return at::sin(at::matmul(weight, x)).sum(); }

void vmap_equals_a_loop(const Tensor& batch, const Tensor& weight) {
  const auto level = functx::push_vmap(batch.size(0), functx::Randomness::Error);
  const Tensor wrapped = loss(functx::make_batched(level, {batch, true}), weight);
  const functx::Batched result = functx::unwrap_batched(level, wrapped);
  functx::pop(level);

  std::vector<Tensor> expected;
  for (const Tensor& x : batch.unbind()) {
    expected.push_back(loss(x, weight));
  }
  check(result.is_batched && at::allclose(result.value, at::stack(expected)), "vmap is a loop");
}

// grad outside vmap: autograd records the batched operators, on plain tensors.
void autograd_sees_through_vmap(const Tensor& batch, const Tensor& weight) {
  const Tensor tracked = weight.detach().requires_grad_();
  const auto level = functx::push_vmap(batch.size(0), functx::Randomness::Error);
  const Tensor wrapped = loss(functx::make_batched(level, {batch, true}), tracked);
  const Tensor total = functx::unwrap_batched(level, wrapped).value.sum();
  functx::pop(level);
  const Tensor gradient = torch::autograd::grad({total}, {tracked})[0];

  const Tensor expected = at::matmul(at::cos(at::matmul(batch, weight.t())).t(), batch);
  check(at::allclose(gradient, expected), "a gradient through vmap");
}

void an_escaped_tensor_raises(const Tensor& batch) {
  const auto level = functx::push_vmap(batch.size(0), functx::Randomness::Error);
  const Tensor escaped = functx::make_batched(level, {batch, true});
  functx::pop(level);
  bool raised = false;
  try {
    at::sin(escaped);
  } catch (const c10::Error&) {
    raised = true;
  }
  check(raised, "a tensor that has escaped its vmap raises");
}

}  // namespace

int main() {
  at::manual_seed(0);
  const Tensor batch = at::randn({5, 3});
  const Tensor weight = at::randn({4, 3});
  vmap_equals_a_loop(batch, weight);
  autograd_sees_through_vmap(batch, weight);
  an_escaped_tensor_raises(batch);
  return failures == 0 ? 0 : 1;
}
