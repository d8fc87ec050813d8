// Between the stack of a boxed rule and a batching rule written in Python. What the rule is given
// and may return is settled in functx/batching_rules.py; here its arguments and results change
// language.
#include "python/batching_rules.h"

#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/jit/python/pybind_utils.h>
#include <torch/csrc/utils/pybind.h>

#include "batching/batched_tensor.h"
#include "batching/boxed_rules.h"
#include "core/schema.h"
#include "python/rule_arguments.h"
#include "python/rule_handle.h"

namespace functx {
namespace {

namespace py = pybind11;

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
    for (size_t i = 0; i < count; ++i) {
      const Argument argument = unwrap(arguments[i], schema.arguments()[i].real_type());
      positional_.append(argument.value);
      in_dims_.append(argument.in_dim);
    }
    keywords_ = keyword_arguments(schema, arguments);
  }

  bool any_batched() const { return any_batched_; }

  py::sequence run(const py::handle& rule) const {
    return rule(level_, returns_, py::tuple(in_dims_), py::tuple(positional_), keywords_);
  }

 private:
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

void bind_batching_rules(py::module_& m) {
  m.def("add_batching_rule",
        [](const std::string& name, const std::string& overload, py::object rule) {
          return RuleHandle(Transform::Vmap, name, overload, std::move(rule), run_rule);
        });
  m.def("ask_for_library_rules", &ask_for_library_rules);
  m.def("wrap_result", &wrap_result);
}

}  // namespace functx
