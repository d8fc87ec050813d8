// Functions of PyTorch that are written in C, with one of ours in front of them.
#pragma once

#include <pybind11/pybind11.h>

namespace functx {

void bind_c_functions(pybind11::module_& m);

}  // namespace functx
