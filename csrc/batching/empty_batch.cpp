#include "batching/empty_batch.h"

#include <ATen/core/List.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/real.h>

#include <algorithm>

#include "batching/batched_tensor.h"
#include "core/empty_batch.h"
#include "core/registry.h"
#include "core/schema.h"
#include "core/tracked.h"

namespace functx {
namespace {

using Stack = torch::jit::Stack;

// The operator takes it as a batch of one, at a level of its own inside of all that are seen.
class LevelOfOne {
 public:
  explicit LevelOfOne(const Level& of_none) : level_(push_vmap(1, of_none.randomness)) {}
  ~LevelOfOne() { pop(level_); }
  LevelOfOne(const LevelOfOne&) = delete;
  LevelOfOne& operator=(const LevelOfOne&) = delete;

  operator const LevelPtr&() const { return level_; }

 private:
  LevelPtr level_;
};

template <class Function>
c10::IValue for_each_tensor(const c10::IValue& value, const Function& function) {
  if (value.isTensor()) {
    return function(value.toTensor());
  }
  if (!value.isList()) {
    return value;
  }
  auto copy = c10::impl::GenericList(value.toList().elementType());
  for (const c10::IValue& element : value.toListRef()) {
    copy.push_back(for_each_tensor(element, function));
  }
  return copy;
}

// Ones, and of integers, which may be indices, zeros. Joined with what they stand in for, they are
// batched by the same levels outside.
Tensor one_like(const Tensor& none) {
  auto sizes = none.sym_sizes().vec();
  sizes[0] = 1;
  const bool is_number = none.is_floating_point() || none.is_complex();
  return at::cat({none, is_number ? none.new_ones_symint(sizes) : none.new_zeros_symint(sizes)});
}

bool is_differentiable(const Tensor& tensor) {
  return tensor.defined() && (tensor.is_floating_point() || tensor.is_complex()) &&
         tensor.layout() == at::kStrided;
}

// The arguments whose gradient the results pass on: as nothing depends on them, a zero.
class Sources {
 public:
  void add(const Tensor& value) {
    if (is_differentiable(value) && is_tracked(value)) {
      values_.push_back(value);
    }
  }

  // `none`, which has no elements, as a function of all of them.
  Tensor connected(Tensor none) const {
    if (is_differentiable(none)) {
      for (const Tensor& value : values_) {
        none = none.add(number(value, none));
      }
    }
    return none;
  }

  void connect_in_place(Tensor none) const {
    if (is_differentiable(none)) {
      for (const Tensor& value : values_) {
        none.add_(number(value, none));
      }
    }
  }

 private:
  static Tensor number(const Tensor& value, const Tensor& like) {
    const Tensor sum = (value.dim() > 0 ? value.narrow(0, 0, 0) : value).sum();
    return (like.is_complex() ? sum : at::real(sum)).to(like.options());
  }

  std::vector<Tensor> values_;
};

class CallOfOne {
 public:
  CallOfOne(const c10::OperatorHandle& op, const LevelPtr& level, Stack arguments)
      : op_(op), level_(level), one_(*level), arguments_(std::move(arguments)) {
    for (const c10::IValue& argument : arguments_) {
      examples_.push_back(
          for_each_tensor(argument, [&](const Tensor& tensor) { return example(tensor); }));
    }
  }

  void run(Stack* stack) {
    Stack results = examples_;
    op_.callBoxed(&results);
    const auto& schema = op_.schema();
    for (size_t i = 0; i < results.size(); ++i) {
      const auto written = written_argument(schema, schema.returns()[i]);
      stack->push_back(written ? written_to(*written)
                               : for_each_tensor(results[i], [&](const Tensor& result) {
                                   return without_example(result);
                                 }));
    }
  }

 private:
  Tensor example(const Tensor& tensor) {
    const Batched x = unwrap_batched(level_, tensor);
    sources_.add(x.value);
    return x.is_batched ? make_batched(one_, {one_like(detach_all(x.value)), true}) : x.value;
  }

  // What depends on the example is not a function of the others either: its derivative by them may
  // be infinite, and times zero no number.
  Tensor without_example(const Tensor& result) {
    if (!result.defined()) {
      return result;
    }
    const Batched x = unwrap_batched(one_, result);
    return make_batched(level_, x.is_batched ? Batched{sources_.connected(none_of(x.value)), true}
                                             : Batched{x.value, false});
  }

  static Tensor none_of(const Tensor& batch_of_one) {
    return detach_all(batch_of_one.narrow(0, 0, 0));
  }

  // An argument in which there is nothing to write to.
  const c10::IValue& written_to(size_t position) {
    const c10::IValue& argument = arguments_[position];
    if (argument.isTensor()) {
      const Tensor& tensor = argument.toTensor();
      TORCH_CHECK(tensor.sym_sizes() == examples_[position].toTensor().sym_sizes(),
                  "functx.vmap: ", op_.operator_name(),
                  " gives another shape to a tensor in a batch of no examples, which is not "
                  "possible. Use an operator that returns a new tensor.");
      sources_.connect_in_place(unwrap_batched(level_, tensor).value);
    }
    return argument;
  }

  const c10::OperatorHandle& op_;
  const LevelPtr& level_;
  const LevelOfOne one_;
  Stack arguments_;
  Stack examples_;
  Sources sources_;
};

bool any_batched(const LevelPtr& level, const Stack& arguments) {
  bool found = false;
  for (const c10::IValue& argument : arguments) {
    for_each_tensor(argument, [&](const Tensor& tensor) {
      found = found || unwrap_batched(level, tensor).is_batched;
      return tensor;
    });
  }
  return found;
}

void typed_rule(const c10::OperatorHandle& op, const LevelPtr&, Stack* stack) {
  run_typed_rule(op, stack);
}

void batch_typed(const c10::OperatorHandle& op, const LevelPtr& level, Stack* stack) {
  batch_without_examples(typed_rule, op, level, stack);
}

const AtLoad is_set([] { set_empty_batch(batch_typed); });

}  // namespace

void batch_one_made_up(const c10::OperatorHandle& op, const LevelPtr& level, Stack* stack) {
  CallOfOne(op, level, torch::jit::pop(*stack, op.schema().arguments().size())).run(stack);
}

void batch_without_examples(const BoxedBatchingRule& rule, const c10::OperatorHandle& op,
                            const LevelPtr& level, Stack* stack) {
  const size_t count = op.schema().arguments().size();
  Stack arguments = torch::jit::last(*stack, count).vec();
  const size_t below = stack->size() - count;
  try {
    rule(op, level, stack);
    return;
  } catch (const c10::Error&) {
    if (!any_batched(level, arguments)) {
      throw;
    }
  }
  stack->resize(below);
  stack->insert(stack->end(), arguments.begin(), arguments.end());
  batch_one_made_up(op, level, stack);
}

}  // namespace functx
