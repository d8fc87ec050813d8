// `x.data = y` where one of them is a tensor inside a transform.
#pragma once

#include <pybind11/pybind11.h>

namespace functx {

void bind_data_setter(pybind11::module_& m);

}  // namespace functx
