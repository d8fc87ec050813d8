// Rules for jvp written in Python.
#pragma once

#include <pybind11/pybind11.h>

namespace functx {

void bind_jvp_rules(pybind11::module_& m);

}  // namespace functx
