// When tensors came to be, for grad to know those that its function has captured.
#pragma once

#include <pybind11/pybind11.h>

namespace functx {

void bind_births(pybind11::module_& m);

}  // namespace functx
