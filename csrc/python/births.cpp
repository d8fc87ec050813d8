// The allocator of Python's tensor objects, with a note of each birth; see csrc/core/captured.h.
// It is a slot of the class, so that every way of making a tensor comes by.
#include "python/births.h"

#include <ATen/ops/empty.h>
#include <c10/core/impl/PyObjectSlot.h>
#include <torch/csrc/autograd/python_variable.h>

#include "core/captured.h"

namespace functx {
namespace {

namespace py = pybind11;

allocfunc plain_alloc = nullptr;
bool has_allocated = false;

PyObject* alloc(PyTypeObject* type, Py_ssize_t items) {
  PyObject* object = plain_alloc(type, items);
  note_birth(object);
  has_allocated = true;
  return object;
}

// Older versions of PyTorch ask for more before they say it.
template <class Slot>
PyObject* content_of(const Slot& slot) {
  if constexpr (requires { slot.load_pyobj(); }) {
    return slot.load_pyobj();
  } else {
    return slot.check_pyobj().value_or(nullptr);
  }
}

// Read without the interpreter's lock, by one who holds the tensor and with it the object. A class
// that is derived from a watched one has an allocator of its own.
const void* object_of(const Tensor& tensor) {
  PyObject* object = content_of(*tensor.unsafeGetTensorImpl()->pyobj_slot());
  return object != nullptr && Py_TYPE(object)->tp_alloc == alloc ? object : nullptr;
}

// Among tuples, lists and dicts, up to a depth that no arguments have.
bool holds(PyObject* tree, const void* object, int depth = 16) {
  if (tree == object) {
    return true;
  }
  if (tree == nullptr || depth == 0) {
    return false;
  }
  if (PyDict_Check(tree)) {
    PyObject* value = nullptr;
    for (Py_ssize_t i = 0; PyDict_Next(tree, &i, nullptr, &value) != 0;) {
      if (holds(value, object, depth - 1)) {
        return true;
      }
    }
    return false;
  }
  if (!PyTuple_Check(tree) && !PyList_Check(tree)) {
    return false;
  }
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(tree); ++i) {
    if (holds(PySequence_Fast_GET_ITEM(tree, i), object, depth - 1)) {
      return true;
    }
  }
  return false;
}

PyObject* as_python(const void* object) {
  return static_cast<PyObject*>(const_cast<void*>(object));
}

// `argnums` is an int or a tuple of them.
bool is_differentiated(Py_ssize_t position, PyObject* argnums) {
  const py::object number = py::int_(position);
  return PyTuple_Check(argnums) ? PySequence_Contains(argnums, number.ptr()) == 1
                                : number.equal(py::handle(argnums));
}

bool has_argument(const Level& level, const void* object) {
  const PythonCall& call = level.call;
  if (object == nullptr || call.args == nullptr) {
    return false;
  }
  const py::gil_scoped_acquire gil;
  PyObject* args = as_python(call.args);
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); ++i) {
    if (!is_differentiated(i, as_python(call.argnums)) &&
        holds(PyTuple_GET_ITEM(args, i), object)) {
      return true;
    }
  }
  return holds(as_python(call.kwargs), object);
}

// Should PyTorch allocate its objects in another way one day, then no tensor counts as captured,
// which is better than all.
bool sees_births() {
  has_allocated = false;
  py::reinterpret_steal<py::object>(THPVariable_Wrap(at::empty({0})));
  return has_allocated;
}

void watch_births(const py::args& classes) {
  for (const py::handle& each : classes) {
    auto* type = reinterpret_cast<PyTypeObject*>(each.ptr());
    if (type->tp_alloc != alloc) {
      plain_alloc = type->tp_alloc;
      type->tp_alloc = alloc;
    }
  }
  if (sees_births()) {
    set_view_of_python(object_of, has_argument);
  }
}

}  // namespace

void bind_births(py::module_& m) { m.def("watch_births", &watch_births); }

}  // namespace functx
