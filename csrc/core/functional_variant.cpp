#include "core/functional_variant.h"

#include <algorithm>
#include <iterator>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "core/schema.h"
#include "core/tracked.h"
#include "core/traits.h"

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

std::optional<c10::OperatorHandle> find_functional_variant(const c10::OperatorHandle& op) {
  const OperatorTraits& traits = traits_of(op);
  const std::string name = functional_name(traits);
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& each : dispatcher.getAllOpNames()) {
    if (each.name != name || each == op.operator_name()) {
      continue;
    }
    const auto candidate = dispatcher.findSchema(each);
    if (candidate && computes(candidate->schema(), traits)) {
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

}  // namespace

bool has_functional_variant(const c10::OperatorHandle& op) {
  return op.schema().is_mutable() && functional_variant(op).has_value();
}

FunctionalCall functional_call(const c10::OperatorHandle& op, const torch::jit::Stack& arguments) {
  const OperatorTraits& traits = traits_of(op);
  FunctionalCall call{*functional_variant(op), {}, {}};
  for (size_t i = 0; i < arguments.size(); ++i) {
    const bool receives = is_destination(traits, op.schema().arguments()[i]);
    if (receives) {
      call.destinations.push_back(arguments[i]);
    }
    if (!receives || !traits.has_out) {
      call.arguments.push_back(arguments[i]);
    }
  }
  const auto& options = call.op.schema().arguments();
  for (size_t i = call.arguments.size(); i < options.size(); ++i) {
    call.arguments.push_back(options[i].name() == "dtype"
                                 ? c10::IValue(call.destinations.front().toTensor().scalar_type())
                                 : c10::IValue());
  }
  return call;
}

std::vector<torch::jit::Stack> one_by_one(const c10::OperatorHandle& op,
                                          const torch::jit::Stack& arguments) {
  const auto& schema = op.schema();
  if (arguments.empty() || !is_written(schema.arguments().front()) ||
      !arguments.front().isTensorList() || !schema.returns().empty()) {
    return {};
  }
  const std::vector<Tensor> written = arguments.front().toTensorVector();
  std::unordered_set<const c10::StorageImpl*> memory;
  for (const Tensor& tensor : written) {
    const Tensor value = innermost_value(tensor);
    if (value.has_storage()) {
      memory.insert(value.storage().unsafeGetStorageImpl());
    }
  }
  if (memory.size() == written.size()) {
    return {};
  }
  const auto only = [](const c10::IValue& argument, size_t i) -> c10::IValue {
    if (!argument.isList()) {
      return argument;
    }
    auto list = c10::impl::GenericList(argument.toList().elementType());
    list.push_back(argument.toListRef()[i]);
    return list;
  };
  std::vector<torch::jit::Stack> calls(written.size());
  for (size_t i = 0; i < calls.size(); ++i) {
    std::transform(arguments.begin(), arguments.end(), std::back_inserter(calls[i]),
                   [&](const c10::IValue& argument) { return only(argument, i); });
  }
  return calls;
}

void return_destinations(const c10::OperatorHandle& op, const torch::jit::Stack& destinations,
                         torch::jit::Stack* stack) {
  if (!op.schema().returns().empty()) {
    stack->insert(stack->end(), destinations.begin(), destinations.end());
  }
}

}  // namespace functx
