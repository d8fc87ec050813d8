// `torch.FloatTensor` and its like are no classes of tensors: their metaclass answers isinstance,
// by the dispatch key of the tensor's backend and the dtype. The backend of a wrapper is none that
// a type is named for, and no arrangement of its keys could make it one, so we stand in front of
// that answer: a wrapper is of the type that its value has.
#include "python/instance_checks.h"

#include <torch/csrc/autograd/python_variable.h>

#include "core/tracked.h"
#include "core/wrapper.h"

namespace functx {
namespace {

namespace py = pybind11;

PyCFunction plain_check = nullptr;

PyObject* check_instance(PyObject* type, PyObject* object) {
  if (!THPVariable_Check(object) || as_wrapper(THPVariable_Unpack(object)) == nullptr) {
    return plain_check(type, object);
  }
  const auto value = py::reinterpret_steal<py::object>(
      THPVariable_Wrap(innermost_value(THPVariable_Unpack(object))));
  return plain_check(type, value.ptr());
}

// `type` is one of those that are named for a backend and a dtype, whichever.
void install(const py::object& type) {
  const py::object method = py::type::of(type).attr("__dict__")["__instancecheck__"];
  if (plain_check == nullptr && Py_TYPE(method.ptr()) == &PyMethodDescr_Type) {
    PyMethodDef* definition = reinterpret_cast<PyMethodDescrObject*>(method.ptr())->d_method;
    plain_check = definition->ml_meth;
    definition->ml_meth = check_instance;
  }
}

}  // namespace

void bind_instance_checks(py::module_& m) { m.def("install_instance_checks", &install); }

}  // namespace functx
