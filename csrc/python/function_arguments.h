// What functx/_autograd_function.py asks about the arguments of an autograd.Function.
#pragma once

#include <pybind11/pybind11.h>

namespace functx {

void bind_function_arguments(pybind11::module_& m);

}  // namespace functx
