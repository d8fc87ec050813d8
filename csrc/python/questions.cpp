// Without pybind11, which would take longer than the answer.
#include "python/questions.h"

#include <torch/csrc/autograd/python_variable.h>

#include "core/level.h"
#include "core/wrapper.h"

namespace functx {
namespace {

namespace py = pybind11;

PyObject* level_depth(PyObject*, PyObject*) { return PyLong_FromSize_t(active_levels().size()); }

PyObject* is_wrapper(PyObject*, PyObject* object) {
  if (!THPVariable_Check(object)) {
    return PyErr_Format(PyExc_TypeError, "functx: expected a Tensor, got %R", object);
  }
  return PyBool_FromLong(as_wrapper(THPVariable_Unpack(object)) != nullptr ? 1 : 0);
}

PyMethodDef methods[] = {{"level_depth", level_depth, METH_NOARGS, nullptr},
                         {"is_wrapper", is_wrapper, METH_O, nullptr},
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

void bind_questions(py::module_& m) {
  if (PyModule_AddFunctions(m.ptr(), methods) != 0) {
    throw py::error_already_set();
  }
}

}  // namespace functx
