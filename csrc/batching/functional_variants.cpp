// Operators that write, in place or into `out=`, and have no rule of their own: the functional
// operator of the same name computes the result (add for add_ and for add.out), which is then
// copied to where it belongs.
#include "batching/functional_variants.h"

#include <c10/core/ScalarType.h>

#include <map>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

#include "batching/boxed_rules.h"
#include "batching/dims.h"
#include "core/schema.h"

namespace functx {
namespace {

// Holds nothing but a place for a result, in place as well as `out=`.
bool is_destination(const OperatorTraits& op, const c10::Argument& argument) {
  return op.has_out ? argument.is_out() : is_written(argument);
}

// add for add_ and add.out.
std::string functional_name(const OperatorTraits& op) {
  std::string name = op.handle.schema().name();
  if (!op.has_out && name.ends_with('_') && !name.ends_with("__")) {
    name.pop_back();
  }
  return name;
}

// The options of a factory, which `out=` has instead.
bool is_option(const c10::Argument& argument) {
  static const std::unordered_set<std::string> names{"dtype", "layout", "device", "pin_memory"};
  return argument.kwarg_only() && names.count(argument.name()) != 0;
}

// Whether `candidate` takes what `op` reads, and returns what it writes.
bool computes(const c10::FunctionSchema& candidate, const OperatorTraits& op) {
  std::vector<const c10::Argument*> inputs;
  size_t destinations = 0;
  for (const auto& argument : op.handle.schema().arguments()) {
    const bool receives = is_destination(op, argument);
    destinations += static_cast<size_t>(receives);
    if (!receives || !op.has_out) {
      inputs.push_back(&argument);
    }
  }
  const auto& arguments = candidate.arguments();
  const auto same = [&](const c10::Argument* mine, const c10::Argument& theirs) {
    const bool may_write = op.has_out && is_written(*mine);
    return mine->name() == theirs.name() && *mine->type() == *theirs.type() &&
           is_written(theirs) == may_write;
  };
  return arguments.size() >= inputs.size() && candidate.returns().size() == destinations &&
         std::equal(inputs.begin(), inputs.end(), arguments.begin(), same) &&
         std::all_of(arguments.begin() + static_cast<ptrdiff_t>(inputs.size()), arguments.end(),
                     is_option);
}

// All overloads of each operator.
const std::multimap<std::string, c10::OperatorName>& overloads() {
  static const auto table = [] {
    std::multimap<std::string, c10::OperatorName> names;
    for (auto& name : c10::Dispatcher::singleton().getAllOpNames()) {
      names.emplace(name.name, name);
    }
    return names;
  }();
  return table;
}

std::optional<c10::OperatorHandle> find_functional_variant(const c10::OperatorHandle& op) {
  const OperatorTraits& traits = traits_of(op);
  const auto [first, last] = overloads().equal_range(functional_name(traits));
  for (auto it = first; it != last; ++it) {
    const auto candidate = c10::Dispatcher::singleton().findSchema(it->second);
    if (candidate && !(it->second == op.operator_name()) && computes(candidate->schema(), traits)) {
      return candidate;
    }
  }
  return std::nullopt;
}

// Looked up once for each operator.
std::optional<c10::OperatorHandle> functional_variant(const c10::OperatorHandle& op) {
  static std::mutex mutex;
  static std::unordered_map<c10::OperatorName, std::optional<c10::OperatorHandle>> known;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = known.find(op.operator_name());
    if (found != known.end()) {
      return found->second;
    }
  }
  auto variant = op.schema().is_mutable() ? find_functional_variant(op) : std::nullopt;
  const std::lock_guard<std::mutex> lock(mutex);
  return known.emplace(op.operator_name(), std::move(variant)).first->second;
}

void write(const c10::OperatorHandle& op, const LevelPtr& level, const Tensor& destination,
           const Tensor& result) {
  const Batched to = unwrap_batched(level, destination);
  const Batched from = unwrap_batched(level, result);
  TORCH_CHECK(!from.is_batched || to.is_batched, "functx.vmap: ", op.operator_name(),
              " writes into a tensor that is the same for every example, but an argument differs "
              "between examples, so the result would have to be a batch of tensors. Use the "
              "operator that returns a new tensor instead, or write into one that was made from a "
              "batched tensor (for example with x.new_zeros(...)).");
  TORCH_CHECK(destination.sym_sizes() == result.sym_sizes(), "functx.vmap: ", op.operator_name(),
              " writes a result of shape ", result.sym_sizes(), " into a tensor of shape ",
              destination.sym_sizes(),
              ". Under vmap it cannot be resized: pass one of the shape of the result.");
  TORCH_CHECK(c10::canCast(result.scalar_type(), destination.scalar_type()),
              "functx.vmap: ", op.operator_name(), ": result type ", result.scalar_type(),
              " can't be cast to the desired output type ", destination.scalar_type());
  to.value.copy_(from.value);
}

void write(const c10::OperatorHandle& op, const LevelPtr& level, const c10::IValue& destination,
           const c10::IValue& result) {
  if (destination.isTensor()) {
    write(op, level, destination.toTensor(), result.toTensor());
    return;
  }
  const auto& destinations = destination.toListRef();
  const auto& results = result.toListRef();
  TORCH_CHECK(destinations.size() == results.size(), "functx.vmap: ", op.operator_name(), " has ",
              results.size(), " results, and out= has ", destinations.size(), " tensors.");
  for (size_t i = 0; i < results.size(); ++i) {
    write(op, level, destinations[i].toTensor(), results[i].toTensor());
  }
}

}  // namespace

bool has_functional_variant(const c10::OperatorHandle& op) {
  return functional_variant(op).has_value();
}

void batch_by_functional_variant(const c10::OperatorHandle& op, const LevelPtr& level,
                                 torch::jit::Stack* stack) {
  const OperatorTraits& traits = traits_of(op);
  const auto& schema = op.schema();
  const torch::jit::Stack arguments = torch::jit::pop(*stack, schema.arguments().size());
  torch::jit::Stack values;
  torch::jit::Stack destinations;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const bool receives = is_destination(traits, schema.arguments()[i]);
    if (receives) {
      destinations.push_back(arguments[i]);
    }
    if (!receives || !traits.has_out) {
      values.push_back(without_tape(level, arguments[i]));
    }
  }
  const c10::OperatorHandle functional = *functional_variant(op);
  for (size_t i = values.size(); i < functional.schema().arguments().size(); ++i) {
    const bool is_dtype = functional.schema().arguments()[i].name() == "dtype";
    values.push_back(is_dtype ? c10::IValue(destinations.front().toTensor().scalar_type())
                              : c10::IValue());
  }
  functional.callBoxed(&values);
  for (size_t i = 0; i < destinations.size(); ++i) {
    write(op, level, destinations[i], values[i]);
  }
  if (!schema.returns().empty()) {
    stack->insert(stack->end(), destinations.begin(), destinations.end());
  }
}

}  // namespace functx
