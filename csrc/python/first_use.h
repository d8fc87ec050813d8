// What is done before the first transform, as far as it concerns Python.
#pragma once

#include <pybind11/pybind11.h>

namespace functx {

// Raises ImportError if functx can't be used in this process.
void check_import();

void bind_first_use(pybind11::module_& m);

}  // namespace functx
