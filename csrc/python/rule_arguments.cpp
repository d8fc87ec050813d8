#include "python/rule_arguments.h"

#include <torch/csrc/DynamicTypes.h>
#include <torch/csrc/jit/python/pybind_utils.h>
#include <torch/csrc/utils/pybind.h>

namespace functx {

namespace py = pybind11;

// A boxed stack holds some of these as plain numbers.
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

bool is_default(const c10::Argument& described, const c10::IValue& argument) {
  const auto& value = described.default_value();
  // Comparing tensors would run an operator.
  return value.has_value() && !argument.isTensor() && !argument.isTensorList() &&
         argument == *value;
}

size_t positional_count(const c10::FunctionSchema& schema, c10::ArrayRef<c10::IValue> arguments) {
  size_t count = arguments.size();
  while (count > 0 && (schema.arguments()[count - 1].kwarg_only() ||
                       is_default(schema.arguments()[count - 1], arguments[count - 1]))) {
    --count;
  }
  return count;
}

py::dict keyword_arguments(const c10::FunctionSchema& schema,
                           c10::ArrayRef<c10::IValue> arguments) {
  py::dict keywords;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const c10::Argument& described = schema.arguments()[i];
    if (described.kwarg_only() && !is_default(described, arguments[i])) {
      keywords[described.name().c_str()] = to_python(arguments[i], described.real_type());
    }
  }
  return keywords;
}

}  // namespace functx
