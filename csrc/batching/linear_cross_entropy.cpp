// PyTorch's chunked linear_cross_entropy: custom operators, since 2.13, that are written in Python
// and reuse buffers from chunk to chunk. To wrappers they are a linear layer and a cross entropy.
#include <ATen/Operators.h>
#include <ATen/core/Reduction.h>

#include <algorithm>

#include "batching/boxed_rules.h"
#include "core/keys.h"
#include "core/operands.h"
#include "core/registry.h"
#include "core/stand_ins.h"
#include "core/torch_func.h"
#include "reverse_ad/recordable.h"
#include "reverse_ad/values.h"

namespace functx {
namespace {

namespace ops = at::_ops;
using torch::jit::Stack;

// The leading arguments of both operators, in the dtype that they accumulate in.
struct Layer {
  Layer(const Stack& arguments, at::ScalarType acc_dtype)
      : input(arguments[0].toTensor().to(acc_dtype)),
        linear_weight(arguments[1].toTensor().to(acc_dtype)),
        target(arguments[2].toTensor()),
        linear_bias(cast(arguments[3], acc_dtype)),
        class_weight(cast(arguments[4], acc_dtype)) {}

  static std::optional<Tensor> cast(const c10::IValue& argument, at::ScalarType dtype) {
    return argument.isNone() ? std::nullopt : std::make_optional(argument.toTensor().to(dtype));
  }

  Tensor log_probabilities() const {
    return ops::linear::call(input, linear_weight, linear_bias).log_softmax(-1);
  }

  Tensor input;
  Tensor linear_weight;
  Tensor target;
  std::optional<Tensor> linear_bias;
  std::optional<Tensor> class_weight;
};

int64_t reduction_of(const Stack& arguments) {
  const std::string& name = arguments[5].toStringRef();
  TORCH_CHECK_NOT_IMPLEMENTED(
      (name == "mean" || name == "sum") && arguments[7].toDouble() == 0,
      "linear_cross_entropy: only a mean or a sum can be chunked, and no label smoothing");
  return name == "mean" ? at::Reduction::Mean : at::Reduction::Sum;
}

// (loss, and what its gradient is where that is asked for); PyTorch's backward pass only scales it.
void with_gradients(const c10::OperatorHandle& op, const LevelPtr& level, Stack* stack) {
  Stack arguments = torch::jit::pop(*stack, op.schema().arguments().size());
  for (auto& argument : arguments) {
    argument = without_tape(level, argument);
  }
  const auto dtype = arguments[0].toTensor().scalar_type();
  const Layer layer(arguments, arguments[10].toScalarType());
  const int64_t reduction = reduction_of(arguments);
  const c10::SymInt ignore_index = arguments[6].toSymInt();
  const Tensor scores = layer.log_probabilities();
  const auto [loss, total] = ops::nll_loss_forward::call(scores, layer.target, layer.class_weight,
                                                         reduction, ignore_index);
  stack->emplace_back(loss.to(dtype));
  const bool wants_input = arguments[12].toBool();
  const bool wants_weight = arguments[13].toBool();
  const bool wants_bias = arguments[14].toBool();
  Tensor grad;
  if (wants_input || wants_weight || wants_bias) {
    const Tensor grad_scores =
        ops::nll_loss_backward::call(loss.new_ones({}), scores, layer.target, layer.class_weight,
                                     reduction, ignore_index, total);
    grad = ops::_log_softmax_backward_data::call(grad_scores, scores, -1, scores.scalar_type());
  }
  const auto push = [&](bool is_wanted, const auto& compute, at::IntArrayRef empty_size) {
    stack->emplace_back((is_wanted ? compute() : loss.new_empty(empty_size)).to(dtype));
  };
  push(wants_input, [&] { return grad.mm(layer.linear_weight); }, {0, 0});
  push(wants_weight, [&] { return grad.t().mm(layer.input); }, {0, 0});
  push(wants_bias, [&] { return grad.sum(0); }, {0});
}

// The same as nll_loss, which has no derivative by the weights of the classes.
Tensor negative_log_likelihood(const Layer& layer, int64_t reduction, const c10::SymInt& ignored) {
  const Tensor scores = layer.log_probabilities();
  if (!layer.class_weight.has_value()) {
    return ops::nll_loss_nd::call(scores, layer.target, std::nullopt, reduction, ignored);
  }
  const Tensor is_ignored = ops::eq_Scalar::call(layer.target, ignored);
  const Tensor classes = layer.target.masked_fill(is_ignored, 0);
  const Tensor weights = layer.class_weight->index_select(0, classes).masked_fill(is_ignored, 0);
  const Tensor chosen = scores.gather(1, classes.unsqueeze(1)).squeeze(1);
  const Tensor losses = chosen.mul(weights).neg();
  switch (reduction) {
    case at::Reduction::None:
      return losses;
    case at::Reduction::Sum:
      return losses.sum();
    default:
      return losses.sum().div(weights.sum());
  }
}

// PyTorch's operators take the weights of the classes for constants.
bool have_class_gradient(at::ArrayRef<c10::IValue> arguments) {
  const c10::IValue& weight = arguments[4];
  return weight.isTensor() &&
         (as_wrapper(weight.toTensor()) != nullptr || weight.toTensor().requires_grad());
}

using Decompose = void (*)(Stack* stack, const Stack& arguments);

// The gradients that are to be saved, which have no derivative, are left out: the tape records what
// the loss is made of.
void reduced(Stack* stack, const Stack& arguments) {
  const Layer layer(arguments, arguments[10].toScalarType());
  const Tensor loss =
      negative_log_likelihood(layer, reduction_of(arguments), arguments[6].toSymInt())
          .to(arguments[0].toTensor().scalar_type());
  stack->emplace_back(loss);
  for (const int64_t rank : {2, 2, 1}) {
    stack->emplace_back(loss.new_empty(std::vector<int64_t>(rank, 0)));
  }
}

// A loss for each row. PyTorch's backward pass writes into buffers that know of no wrapper.
void row_by_row(Stack* stack, const Stack& arguments) {
  const Layer layer(arguments, arguments[8].toScalarType());
  const Tensor losses =
      negative_log_likelihood(layer, at::Reduction::None, arguments[5].toSymInt());
  stack->emplace_back(losses.to(arguments[0].toTensor().scalar_type()));
}

template <Decompose decompose>
void decomposed(const c10::OperatorHandle& op, Stack* stack) {
  const Stack arguments = torch::jit::pop(*stack, op.schema().arguments().size());
  decompose(stack, arguments);
}

template <Decompose decompose, bool under_vmap>
void on_wrappers(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  const size_t count = op.schema().arguments().size();
  const auto operands = Operands::of_stack(*stack, count);
  Wrapper* top = operands.top();
  if (top == nullptr || yields_to_torch_func(operands, keys) ||
      need_stand_ins(operands, op.schema(), *stack)) {
    run_boxed(traits_of(op), keys, stack);
    return;
  }
  if (under_vmap || top->level()->transform == Transform::Jvp || active_derivatives() > 1 ||
      have_class_gradient(torch::jit::last(*stack, count))) {
    decomposed<decompose>(op, stack);
  } else {
    run_boxed(traits_of(op), keys, stack);
  }
}

template <Decompose decompose>
void on_plain_tensors(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  const auto arguments = torch::jit::last(*stack, op.schema().arguments().size());
  const bool requires_grad =
      std::any_of(arguments.begin(), arguments.end(), [](const c10::IValue& argument) {
        return argument.isTensor() && argument.toTensor().requires_grad();
      });
  if ((active_derivatives() > 1 || have_class_gradient(arguments)) &&
      is_recorded_on_plain_tensors(requires_grad)) {
    decomposed<decompose>(op, stack);
  } else {
    op.redispatchBoxed(keys & kBelowGradKey, stack);
  }
}

template <Decompose decompose, bool under_vmap>
void decompose_under_tapes(const c10::OperatorName& name) {
  claim(name, Coverage::Decomposition);
  register_kernel(
      name, kFrontKey,
      c10::KernelFunction::makeFromBoxedFunction<&on_wrappers<decompose, under_vmap>>());
  register_kernel(name, kGradKey,
                  c10::KernelFunction::makeFromBoxedFunction<&on_plain_tensors<decompose>>());
}

// PyTorch defines the operators when the function is first called: later than this.
FUNCTX_RULES(linear_cross_entropy) {
  const c10::OperatorName name("torch_nn::_linear_cross_entropy_batch_chunked", "");
  boxed_batching_rule({name.name.c_str()}, with_gradients);
  decompose_under_tapes<reduced, /*under_vmap=*/false>(name);
  register_kernel(name, kBackKey, c10::KernelFunction::makeFromBoxedFunction<&boxed_kernel>());
  decompose_under_tapes<row_by_row, /*under_vmap=*/true>(
      {"torch_nn::_linear_cross_entropy_batch_chunked_no_reduction", ""});
}

}  // namespace
}  // namespace functx
