// A method of tensors asks ours if the tensor is a wrapper, another function if a transform is
// active. Both stay the objects that they were: to those who got hold of them before, and in tables
// of the functions that somebody overrides. So a method is replaced in its definition. A function
// is looked up in tables by what is there, and has a place of its own for how it is called.
#include "python/c_functions.h"

#include <torch/csrc/autograd/python_variable.h>

#include <array>
#include <unordered_map>
#include <utility>

#include "core/level.h"
#include "core/wrapper.h"

namespace functx {
namespace {

namespace py = pybind11;

// Those who are called first live as long as Python. They get what the plain one gets, and return
// NotImplemented to have that called after all.
struct Method {
  PyMethodDef* definition = nullptr;
  PyCFunction plain = nullptr;
  PyObject* ours = nullptr;
};

constexpr size_t kMost = 8;
std::array<Method, kMost> methods;

// Functions, and who is called first.
std::unordered_map<PyObject*, PyObject*> functions;

// What ours returns, a new reference, or NotImplemented (borrowed) if the plain one is to be
// called.
PyObject* ask(const Method& method, PyObject* self, PyObject* args, PyObject* kwargs) {
  if (!THPVariable_Check(self) || as_wrapper(THPVariable_Unpack(self)) == nullptr) {
    return Py_NotImplemented;
  }
  const auto first = py::reinterpret_steal<py::object>(PyTuple_Pack(1, self));
  const auto given = py::reinterpret_steal<py::object>(PySequence_Concat(first.ptr(), args));
  PyObject* result = PyObject_Call(method.ours, given.ptr(), kwargs);
  if (result == Py_NotImplemented) {
    Py_DECREF(result);
  }
  return result;
}

// Definitions lead to functions of either kind by a pointer of one type.
template <class To, class From>
To function_cast(From function) {
  return reinterpret_cast<To>(reinterpret_cast<void*>(function));
}

// What stands in front of the method at a place: one that takes arguments, or none.
template <size_t place>
PyObject* with_arguments(PyObject* self, PyObject* args, PyObject* kwargs) {
  const Method& method = methods[place];
  PyObject* result = ask(method, self, args, kwargs);
  return result != Py_NotImplemented
             ? result
             : function_cast<PyCFunctionWithKeywords>(method.plain)(self, args, kwargs);
}

template <size_t place>
PyObject* without_arguments(PyObject* self, PyObject* nothing) {
  const Method& method = methods[place];
  PyObject* result = ask(method, self, py::tuple().ptr(), nullptr);
  return result != Py_NotImplemented ? result : method.plain(self, nothing);
}

template <size_t... places>
PyCFunction stand_in(size_t place, bool takes_arguments, std::index_sequence<places...>) {
  static constexpr std::array with{&with_arguments<places>...};
  static constexpr std::array without{&without_arguments<places>...};
  return takes_arguments ? function_cast<PyCFunction>(with.at(place)) : without.at(place);
}

bool takes_arguments(const PyMethodDef& definition) {
  constexpr int both = METH_VARARGS | METH_KEYWORDS;
  return (definition.ml_flags & both) == both && (definition.ml_flags & METH_FASTCALL) == 0;
}

void put_before_method(PyMethodDef* definition, const py::object& ours) {
  if (!takes_arguments(*definition) && (definition->ml_flags & METH_NOARGS) == 0) {
    return;
  }
  size_t place = 0;
  while (methods.at(place).definition != nullptr) {
    if (methods[place++].definition == definition) {
      return;
    }
  }
  methods[place] = {definition, definition->ml_meth, ours.inc_ref().ptr()};
  definition->ml_meth =
      stand_in(place, takes_arguments(*definition), std::make_index_sequence<kMost>());
}

PyObject* call_plain(PyObject* function, PyObject* const* args, Py_ssize_t count,
                     PyObject* keywords) {
  py::tuple positional(count);
  for (Py_ssize_t i = 0; i < count; ++i) {
    positional[i] = py::handle(args[i]);
  }
  py::dict named;
  for (Py_ssize_t i = 0; keywords != nullptr && i < PyTuple_GET_SIZE(keywords); ++i) {
    named[PyTuple_GET_ITEM(keywords, i)] = py::handle(args[count + i]);
  }
  return Py_TYPE(function)->tp_call(function, positional.ptr(),
                                    named.empty() ? nullptr : named.ptr());
}

PyObject* call_function(PyObject* function, PyObject* const* args, size_t flagged_count,
                        PyObject* keywords) {
  const Py_ssize_t count = PyVectorcall_NARGS(flagged_count);
  if (!active_levels().empty()) {
    PyObject* result = PyObject_Vectorcall(functions.at(function), args, count, keywords);
    if (result != Py_NotImplemented) {
      return result;
    }
    Py_DECREF(result);
  }
  return call_plain(function, args, count, keywords);
}

void put_before_function(const py::object& function, const py::object& ours) {
  auto* content = reinterpret_cast<PyCFunctionObject*>(function.ptr());
  if (takes_arguments(*content->m_ml) && content->vectorcall == nullptr) {
    functions.emplace(function.inc_ref().ptr(), ours.inc_ref().ptr());
    content->vectorcall = call_function;
  }
}

// Does nothing for a function that this PyTorch defines in another way.
void put_before(const py::object& function, const py::object& ours) {
  if (Py_TYPE(function.ptr()) == &PyMethodDescr_Type) {
    put_before_method(reinterpret_cast<PyMethodDescrObject*>(function.ptr())->d_method, ours);
  } else if (PyCFunction_Check(function.ptr())) {
    put_before_function(function, ours);
  }
}

}  // namespace

void bind_c_functions(py::module_& m) { m.def("put_before_c", &put_before); }

}  // namespace functx
