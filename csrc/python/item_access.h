// x[i] and x[i] = y, where i is a number of its own for each example.
#pragma once

#include <pybind11/pybind11.h>

namespace functx {

// Binds what functx/_indexing.py needs.
void bind_item_access(pybind11::module_& m);

}  // namespace functx
