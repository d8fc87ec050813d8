// PyTorch sets `x.data` without the dispatcher. Where the two tensors can't share a value it says
// something about types of tensors, so we stand in front of its setter and say why.
#include "python/data_setter.h"

#include <torch/csrc/autograd/python_variable.h>

#include "core/wrapper.h"

namespace functx {
namespace {

namespace py = pybind11;

setter plain_setter = nullptr;

const Wrapper* wrapper_in(PyObject* object) {
  return object != nullptr && THPVariable_Check(object) ? as_wrapper(THPVariable_Unpack(object))
                                                        : nullptr;
}

int set_data(PyObject* self, PyObject* value, void* closure) {
  const Wrapper* target = wrapper_in(self);
  const Wrapper* source = wrapper_in(value);
  const Wrapper* either = target != nullptr ? target : source;
  if (either != nullptr &&
      (target == nullptr || source == nullptr || target->level() != source->level())) {
    const char* transform = name_of(either->level()->transform);
    PyErr_Format(
        PyExc_RuntimeError,
        "functx.%s: mutating directly with `.data` under %s transform is not allowed unless "
        "x and y of x.data = y both belong to it: otherwise one can't have the value of "
        "the other. Write x.copy_(y) for the numbers in it, or use y in the place of x.",
        transform, transform);
    return -1;
  }
  return plain_setter(self, value, closure);
}

void install() {
  auto* type = reinterpret_cast<PyTypeObject*>(THPVariableClass)->tp_base;
  const py::object property =
      py::handle(reinterpret_cast<PyObject*>(type)).attr("__dict__")["data"];
  if (plain_setter == nullptr && Py_TYPE(property.ptr()) == &PyGetSetDescr_Type) {
    PyGetSetDef* slots = reinterpret_cast<PyGetSetDescrObject*>(property.ptr())->d_getset;
    plain_setter = slots->set;
    slots->set = set_data;
  }
}

}  // namespace

void bind_data_setter(py::module_& m) { m.def("install_data_setter", &install); }

}  // namespace functx
