// Between the stack of a boxed rule and a rule for jvp written in Python. What the rule is given
// and may return is settled in functx/jvp_rules.py; here its arguments and results change language.
#include "python/jvp_rules.h"

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/jit/python/pybind_utils.h>
#include <torch/csrc/utils/pybind.h>

#include "forward_ad/boxed_duals.h"
#include "forward_ad/fallback.h"
#include "forward_ad/sharing.h"
#include "python/rule_arguments.h"
#include "python/rule_handle.h"

namespace functx {
namespace {

namespace py = pybind11;

py::object primal_of(const LevelPtr& level, const c10::IValue& value, const c10::TypePtr& type) {
  return to_python(
      map_tensors(value, [&](const Tensor& tensor) { return unwrap_dual(level, tensor).primal; }),
      type);
}

// In the structure of `value`, None for what has no tangent.
py::object tangent_of(const LevelPtr& level, const c10::IValue& value) {
  if (value.isTensor()) {
    Dual dual = unwrap_dual(level, value.toTensor());
    return dual.has_tangent() ? py::cast(std::move(dual.tangent)) : py::none();
  }
  if (!value.isList()) {
    return py::none();
  }
  py::list tangents;
  for (const c10::IValue& element : value.toListRef()) {
    tangents.append(tangent_of(level, element));
  }
  return tangents;
}

// A result of a rule. An operator returns new memory, and so does this: a primal that the rule has
// passed on is copied, or it would be written to under another name.
class Results {
 public:
  Results(const LevelPtr& level, const torch::jit::Stack& arguments)
      : level_(level), arguments_(arguments), lenders_(level, arguments) {}

  c10::IValue wrap(const py::handle& primal, const py::handle& tangent,
                   const c10::TypePtr& type) const {
    if (THPVariable_Check(primal.ptr())) {
      const Tensor direction = tangent.is_none() ? Tensor() : THPVariable_Unpack(tangent.ptr());
      return make_dual(level_,
                       lenders_.settle({fresh(THPVariable_Unpack(primal.ptr())), direction}));
    }
    if (type->kind() != c10::TypeKind::ListType) {
      return torch::jit::toIValue(primal, type);
    }
    const auto element_type = type->castRaw<c10::ListType>()->getElementType();
    auto list = c10::impl::GenericList(element_type);
    const auto primals = py::reinterpret_borrow<py::sequence>(primal);
    for (size_t i = 0; i < primals.size(); ++i) {
      const py::object each =
          tangent.is_none() ? py::none().cast<py::object>()
                            : py::reinterpret_borrow<py::sequence>(tangent)[i].cast<py::object>();
      list.push_back(wrap(py::object(primals[i]), each, element_type));
    }
    return list;
  }

 private:
  Tensor fresh(const Tensor& primal) const {
    bool is_passed_on = false;
    visit_tensors(arguments_, [&](const Tensor& tensor) {
      is_passed_on = is_passed_on || may_share_memory(primal, unwrap_dual(level_, tensor).primal);
    });
    return is_passed_on ? primal.clone() : primal;
  }

  const LevelPtr& level_;
  const torch::jit::Stack& arguments_;
  Lenders lenders_;
};

// The caller holds the GIL.
void run_rule(const py::handle& rule, const c10::OperatorHandle& op, const LevelPtr& level,
              torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const torch::jit::Stack arguments = torch::jit::pop(*stack, schema.arguments().size());
  if (!any_tangent(level, arguments)) {
    const py::gil_scoped_release without_gil;
    run_on_primals(op, level, arguments, stack);
    return;
  }
  py::list primals;
  py::list tangents;
  const size_t count = positional_count(schema, arguments);
  for (size_t i = 0; i < count; ++i) {
    primals.append(primal_of(level, arguments[i], schema.arguments()[i].real_type()));
    tangents.append(tangent_of(level, arguments[i]));
  }
  const py::sequence results = rule(schema.returns().size(), py::tuple(primals),
                                    py::tuple(tangents), keyword_arguments(schema, arguments));
  const Results wrapping(level, arguments);
  for (size_t i = 0; i < schema.returns().size(); ++i) {
    const py::sequence pair = results[i];
    stack->push_back(
        wrapping.wrap(py::object(pair[0]), py::object(pair[1]), schema.returns()[i].real_type()));
  }
}

// What a backward written in Python raises when it is differentiated, as an exception that says why
// that was tried.
void elaborate(const std::string& before, const std::string& after) {
  const py::gil_scoped_acquire gil;
  try {
    try {
      throw;
    } catch (python_error& error) {
      error.restore();
      throw py::error_already_set();
    }
  } catch (py::error_already_set& error) {
    const std::string reason = py::str(error.value());
    if (!error.matches(PyExc_RuntimeError) || reason.starts_with("functx.jvp: ")) {
      throw;
    }
    py::raise_from(error, PyExc_NotImplementedError, (before + reason + after).c_str());
    throw py::error_already_set();
  }
}

}  // namespace

void bind_jvp_rules(py::module_& m) {
  set_elaborate(elaborate);
  m.def("add_jvp_rule", [](const std::string& name, const std::string& overload, py::object rule) {
    return RuleHandle(Transform::Jvp, name, overload, std::move(rule), run_rule);
  });
}

}  // namespace functx
