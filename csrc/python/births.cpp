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
    set_object_of(object_of);
  }
}

}  // namespace

void bind_births(py::module_& m) { m.def("watch_births", &watch_births); }

}  // namespace functx
