// Arguments of a boxed operator as a rule written in Python gets them.
#pragma once

#include <ATen/core/function_schema.h>
#include <pybind11/pybind11.h>

namespace functx {

// `value`, of the schema's type `type`.
pybind11::object to_python(const c10::IValue& value, const c10::TypePtr& type);

// Whether an argument has its default value.
bool is_default(const c10::Argument& described, const c10::IValue& argument);

// How many arguments to pass by position. Trailing ones that have their default value are left out,
// as everywhere in PyTorch: a rule need not name them.
size_t positional_count(const c10::FunctionSchema& schema, c10::ArrayRef<c10::IValue> arguments);

// Keyword-only arguments that don't have their default value. None of them is a tensor.
pybind11::dict keyword_arguments(const c10::FunctionSchema& schema,
                                 c10::ArrayRef<c10::IValue> arguments);

}  // namespace functx
