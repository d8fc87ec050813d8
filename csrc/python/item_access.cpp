// PyTorch turns a 0-d tensor in x[i] into a Python number before the dispatcher sees anything, and
// a batched one has none. So we stand in front of the C functions behind x[...], which every class
// of tensors has in its slots: the ones that are there take all other indices, at the cost of a
// look at their type.
#include "python/item_access.h"

#include <torch/csrc/autograd/python_variable.h>

#include "batching/data_dependent.h"

namespace functx {
namespace {

namespace py = pybind11;

// The functions of PyTorch, and ours in Python for the indices it cannot take.
binaryfunc plain_getitem = nullptr;
objobjargproc plain_setitem = nullptr;
PyObject* batched_getitem = nullptr;
PyObject* batched_setitem = nullptr;

// A byte is taken for a mask.
bool is_batched_number(PyObject* object) {
  if (Py_TYPE(object) != reinterpret_cast<PyTypeObject*>(THPVariableClass)) {
    return false;
  }
  const at::Tensor& tensor = THPVariable_Unpack(object);
  return as_wrapper(tensor) != nullptr && tensor.dim() == 0 &&
         at::isIntegralType(tensor.scalar_type(), /*includeBool=*/false) &&
         tensor.scalar_type() != at::kByte && differs_between_examples(tensor);
}

bool has_batched_number(PyObject* index) {
  if (!PyTuple_CheckExact(index)) {
    return is_batched_number(index);
  }
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(index); ++i) {
    if (is_batched_number(PyTuple_GET_ITEM(index, i))) {
      return true;
    }
  }
  return false;
}

PyObject* getitem(PyObject* self, PyObject* index) {
  return has_batched_number(index)
             ? PyObject_CallFunctionObjArgs(batched_getitem, self, index, nullptr)
             : plain_getitem(self, index);
}

// Without a value: del x[i], which PyTorch refuses.
int setitem(PyObject* self, PyObject* index, PyObject* value) {
  if (value == nullptr || !has_batched_number(index)) {
    return plain_setitem(self, index, value);
  }
  PyObject* none = PyObject_CallFunctionObjArgs(batched_setitem, self, index, value, nullptr);
  Py_XDECREF(none);
  return none == nullptr ? -1 : 0;
}

// A class has copies of the slots of its base, unless it defines methods of its own.
void replace_slots(const py::handle& type) {
  PyMappingMethods* slots = reinterpret_cast<PyTypeObject*>(type.ptr())->tp_as_mapping;
  if (slots != nullptr && slots->mp_subscript == plain_getitem) {
    slots->mp_subscript = getitem;
  }
  if (slots != nullptr && slots->mp_ass_subscript == plain_setitem) {
    slots->mp_ass_subscript = setitem;
  }
  for (const py::handle subclass : py::type::of(type).attr("__subclasses__")(type)) {
    replace_slots(subclass);
  }
}

// For who calls x.__getitem__(i).
template <class Function>
void replace_method(const py::handle& type, const char* name, Function function) {
  const py::object method = type.attr("__dict__")[name];
  if (Py_TYPE(method.ptr()) == &PyWrapperDescr_Type) {
    reinterpret_cast<PyWrapperDescrObject*>(method.ptr())->d_wrapped =
        reinterpret_cast<void*>(function);
  }
}

void install(const py::function& with_getitem, const py::function& with_setitem) {
  const py::handle base(
      reinterpret_cast<PyObject*>(reinterpret_cast<PyTypeObject*>(THPVariableClass)->tp_base));
  const PyMappingMethods* slots = reinterpret_cast<PyTypeObject*>(base.ptr())->tp_as_mapping;
  if (plain_getitem != nullptr || slots == nullptr) {
    return;
  }
  plain_getitem = slots->mp_subscript;
  plain_setitem = slots->mp_ass_subscript;
  batched_getitem = with_getitem.inc_ref().ptr();
  batched_setitem = with_setitem.inc_ref().ptr();
  replace_slots(base);
  replace_method(base, "__getitem__", getitem);
  replace_method(base, "__setitem__", setitem);
}

}  // namespace

void bind_item_access(py::module_& m) {
  m.def("is_batched_number",
        [](const py::handle& object) { return is_batched_number(object.ptr()); });
  m.def("install_item_access", &install);
}

}  // namespace functx
