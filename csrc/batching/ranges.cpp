// linspace and logspace between ends that are tensors, as PyTorch's kernels compute them: from both
// ends to the middle.
#include <ATen/ExpandUtils.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/scalar_tensor.h>

#include "batching/boxed_rules.h"
#include "batching/dims.h"
#include "batching/rule.h"

namespace functx {
namespace {

struct Range {
  Batched start;
  Batched end;
  int64_t steps;
  at::TensorOptions options;

  bool is_batched() const { return start.is_batched || end.is_batched; }
};

Batched end_of(const LevelPtr& level, const c10::IValue& argument) {
  if (!argument.isTensor()) {
    return {at::scalar_tensor(argument.toScalar()), false};
  }
  const Batched x = unwrap_batched(level, argument.toTensor());
  return {x.value, x.is_batched};
}

// The arguments before `options_at` are the ends, the number of steps and, for logspace, the base.
Range parse(const LevelPtr& level, at::ArrayRef<c10::IValue> arguments, size_t options_at) {
  Range range{end_of(level, arguments[0]), end_of(level, arguments[1]), arguments[2].toInt(), {}};
  const bool is_complex = range.start.value.is_complex() || range.end.value.is_complex();
  const auto inferred = is_complex ? c10::get_default_complex_dtype() : c10::get_default_dtype();
  range.options = at::TensorOptions()
                      .dtype(arguments[options_at].toOptional<at::ScalarType>().value_or(
                          c10::typeMetaToScalarType(inferred)))
                      .device(arguments[options_at + 2].toOptional<at::Device>());
  return range;
}

// Whole numbers are truncated, and powers blow up a half's last digit, so that these depend on how
// the kernel rounds; the rest is what PyTorch refuses, in its own words.
bool has_formula(const Range& range, bool is_logarithmic) {
  const auto dtype = c10::typeMetaToScalarType(range.options.dtype());
  if (is_logarithmic && at::isReducedFloatingType(dtype)) {
    return false;
  }
  const bool is_complex = range.start.value.is_complex() || range.end.value.is_complex();
  return !at::isIntegralType(dtype, true) && (!is_complex || at::isComplexType(dtype)) &&
         range.start.logical_dim() == 0 && range.end.logical_dim() == 0 && range.steps >= 0;
}

Tensor points(const Range& range) {
  const Tensor start = range.start.value.to(range.options).unsqueeze(-1);
  const Tensor end = range.end.value.to(range.options).unsqueeze(-1);
  if (range.steps <= 1) {
    const auto size = at::infer_size(start.sizes(), end.sizes());
    return start.expand(size).slice(-1, 0, range.steps).clone();
  }
  const Tensor step = end.sub(start).div(range.steps - 1);
  const int64_t half = range.steps / 2;
  const auto counts = start.options().dtype(at::kLong);
  return at::cat({start.add(step.mul(at::arange(half, counts))),
                  end.sub(step.mul(at::arange(range.steps - half - 1, -1, -1, counts)))},
                 -1);
}

void space(const c10::OperatorHandle& op, const LevelPtr& level, torch::jit::Stack* stack) {
  const size_t count = op.schema().arguments().size();
  const auto arguments = torch::jit::last(*stack, count);
  const bool is_logarithmic = op.schema().name() == "aten::logspace";
  const Range range = parse(level, arguments, is_logarithmic ? 4 : 3);
  if (!range.is_batched() || !has_formula(range, is_logarithmic)) {
    loop_silently(op, level, stack);
    return;
  }
  Tensor result = points(range);
  if (is_logarithmic) {
    result = at::pow(at::Scalar(arguments[3].toDouble()), result);
  }
  torch::jit::drop(*stack, count);
  stack->emplace_back(make_batched(level, {std::move(result), true}));
}

}  // namespace

FUNCTX_RULES(ranges) {
  boxed_batching_rule({"aten::linspace.Tensor_Tensor", "aten::linspace.Tensor_Scalar",
                       "aten::linspace.Scalar_Tensor", "aten::logspace.Tensor_Tensor",
                       "aten::logspace.Tensor_Scalar", "aten::logspace.Scalar_Tensor"},
                      space);
}

}  // namespace functx
