// What functx/_custom_function.py needs to transpose a backward that is written in Python.
#pragma once

#include <pybind11/pybind11.h>

namespace functx {

void bind_transposition(pybind11::module_& m);

}  // namespace functx
