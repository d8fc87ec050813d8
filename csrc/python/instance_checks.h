// isinstance(x, torch.FloatTensor) and its like where x is a tensor inside a transform.
#pragma once

#include <pybind11/pybind11.h>

namespace functx {

void bind_instance_checks(pybind11::module_& m);

}  // namespace functx
