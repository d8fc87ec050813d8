// Between the stack of a boxed rule and a rule written in Python. What the rule is given and may
// return is settled in functx/batching_rules.py; here its arguments and results change language.
#include "python/python_rules.h"

#include <c10/core/SafePyObject.h>
#include <torch/csrc/DynamicTypes.h>
#include <torch/csrc/PyInterpreter.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/jit/python/pybind_utils.h>
#include <torch/csrc/utils/pybind.h>

#include "batching/batched_tensor.h"
#include "batching/boxed_rules.h"
#include "batching/runtime_rules.h"
#include "core/schema.h"

namespace functx {
namespace {

namespace py = pybind11;

// A boxed stack holds these as plain numbers.
py::object to_python(const c10::IValue& value, const c10::TypePtr& type) {
  if (value.isNone()) {
    return py::none();
  }
  switch (type->kind()) {
    case c10::TypeKind::OptionalType:
      return to_python(value, type->castRaw<c10::OptionalType>()->getElementType());
    case c10::TypeKind::ScalarTypeType:
      return py::cast(static_cast<at::ScalarType>(value.toInt()));
    case c10::TypeKind::LayoutType:
      return py::reinterpret_borrow<py::object>(
          reinterpret_cast<PyObject*>(torch::getTHPLayout(static_cast<at::Layout>(value.toInt()))));
    case c10::TypeKind::MemoryFormatType:
      return py::cast(static_cast<at::MemoryFormat>(value.toInt()));
    default:
      return torch::jit::toPyObject(value);
  }
}

// An argument as the rule gets it, and what `in_dims` has in its place: the same structure, 0 for
// the tensors with a batch dimension.
struct Argument {
  py::object value;
  py::object in_dim = py::none();
};

// The arguments of one call.
class Call {
 public:
  Call(const LevelPtr& level, const c10::FunctionSchema& schema,
       c10::ArrayRef<c10::IValue> arguments)
      : level_(level), returns_(schema.returns().size()) {
    const size_t count = positional_count(schema, arguments);
    for (size_t i = 0; i < arguments.size(); ++i) {
      const c10::Argument& described = schema.arguments()[i];
      if (i < count) {
        const Argument argument = unwrap(arguments[i], described.real_type());
        positional_.append(argument.value);
        in_dims_.append(argument.in_dim);
      } else if (described.kwarg_only() && !is_default(described, arguments[i])) {
        keywords_[described.name().c_str()] = unwrap(arguments[i], described.real_type()).value;
      }
    }
  }

  bool any_batched() const { return any_batched_; }

  py::sequence run(const py::handle& rule) const {
    return rule(level_, returns_, py::tuple(in_dims_), py::tuple(positional_), keywords_);
  }

 private:
  static bool is_default(const c10::Argument& described, const c10::IValue& argument) {
    const auto& value = described.default_value();
    // Comparing tensors would run an operator.
    return value.has_value() && !argument.isTensor() && !argument.isTensorList() &&
           argument == *value;
  }

  // Trailing arguments that have their default value are left out, as everywhere in PyTorch: a rule
  // need not name them.
  static size_t positional_count(const c10::FunctionSchema& schema,
                                 c10::ArrayRef<c10::IValue> arguments) {
    size_t count = arguments.size();
    while (count > 0 && (schema.arguments()[count - 1].kwarg_only() ||
                         is_default(schema.arguments()[count - 1], arguments[count - 1]))) {
      --count;
    }
    return count;
  }

  Argument unwrap(const c10::IValue& value, const c10::TypePtr& type) {
    if (value.isTensor()) {
      const Batched batched = unwrap_batched(level_, value.toTensor());
      any_batched_ = any_batched_ || batched.is_batched;
      return {to_python(batched.value, type), batched.is_batched ? py::cast(0) : py::none()};
    }
    if (!value.isList()) {
      return {to_python(value, type)};
    }
    py::list values;
    py::list in_dims;
    const c10::TypePtr element_type = value.toList().elementType();
    for (const c10::IValue& element : value.toListRef()) {
      const Argument each = unwrap(element, element_type);
      values.append(each.value);
      in_dims.append(each.in_dim);
    }
    return {values, in_dims};
  }

  const LevelPtr& level_;
  size_t returns_;
  py::list positional_;
  py::list in_dims_;
  py::dict keywords_;
  bool any_batched_ = false;
};

// A rule may resize what it writes to.
void refresh_written(const LevelPtr& level, const c10::FunctionSchema& schema,
                     const torch::jit::Stack& arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (is_written(schema.arguments()[i]) && arguments[i].isTensor()) {
      if (auto* wrapper = at_level<BatchedTensor>(arguments[i].toTensor(), *level)) {
        wrapper->refresh();
      }
    }
  }
}

// The caller holds the GIL.
void run_rule(const py::handle& rule, const c10::OperatorHandle& op, const LevelPtr& level,
              torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const Call call(level, schema, torch::jit::last(*stack, schema.arguments().size()));
  if (!call.any_batched()) {
    // Once is enough, on the values.
    const py::gil_scoped_release without_gil;
    loop_silently(op, level, stack);
    return;
  }
  const torch::jit::Stack arguments = torch::jit::pop(*stack, schema.arguments().size());
  const py::sequence results = call.run(rule);
  refresh_written(level, schema, arguments);
  for (size_t i = 0; i < schema.returns().size(); ++i) {
    const auto& result = schema.returns()[i];
    const auto written = written_argument(schema, result);
    stack->push_back(written ? arguments[*written]
                             : torch::jit::toIValue(results[i], result.real_type()));
  }
}

// A rule in Python as one of the core. It is dropped on any thread, with or without the GIL.
RuntimeRulePtr wrap_rule(py::object rule) {
  auto holder = std::make_shared<const c10::SafePyObject>(rule.release().ptr(), getPyInterpreter());
  return std::make_shared<const RuntimeRule>(
      [holder](const c10::OperatorHandle& op, const LevelPtr& level, torch::jit::Stack* stack) {
        const py::gil_scoped_acquire gil;
        run_rule(holder->ptr(getPyInterpreter()), op, level, stack);
      });
}

c10::OperatorHandle find_operator(const std::string& name, const std::string& overload) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), overload.c_str());
}

// Undoes the registration of a rule.
struct RuleHandle {
  c10::OperatorHandle op;
  RuntimeRulePtr rule;

  void remove() {
    if (rule != nullptr) {
      remove_runtime_rule(op, rule);
      rule.reset();
    }
  }
};

RuleHandle add_rule(const std::string& name, const std::string& overload, py::object rule) {
  RuleHandle handle{find_operator(name, overload), wrap_rule(std::move(rule))};
  add_runtime_rule(handle.op, handle.rule);
  return handle;
}

// Gives the rule that PyTorch knows for the operator of a name, or None. Lives as long as Python.
PyObject* find_library_rule = nullptr;

bool run_library_rule(const c10::OperatorHandle& op, const LevelPtr& level,
                      torch::jit::Stack* stack) {
  const py::gil_scoped_acquire gil;
  const py::object rule =
      py::reinterpret_borrow<py::object>(find_library_rule)(c10::toString(op.operator_name()));
  if (rule.is_none()) {
    return false;
  }
  run_rule(rule, op, level, stack);
  return true;
}

void ask_for_library_rules(py::object find) {
  find_library_rule = find.release().ptr();
  set_library_rules(run_library_rule);
}

// A result of a rule, with its batch dimension at `dim` if it has one.
py::object wrap_result(const LevelPtr& level, const Tensor& value, std::optional<int64_t> dim) {
  Batched result{dim.has_value() ? value.movedim(*dim, 0) : value, dim.has_value()};
  return py::cast(make_batched(level, std::move(result)));
}

}  // namespace

void bind_python_rules(py::module_& m) {
  py::class_<RuleHandle>(m, "RuleHandle").def("remove", &RuleHandle::remove);
  m.def("add_rule", &add_rule);
  m.def("ask_for_library_rules", &ask_for_library_rules);
  m.def("wrap_result", &wrap_result);
}

}  // namespace functx
