// What our functions in front of PyTorch's ask first, on every call.
#pragma once

#include <pybind11/pybind11.h>

namespace functx {

void bind_questions(pybind11::module_& m);

}  // namespace functx
