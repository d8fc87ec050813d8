// Arguments of an autograd.Function: which transforms they are under, and the way from a tensor at
// a level to its value and back. Unlike `batch`, these keep the identity of a value.
#include "python/function_arguments.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "batching/batched_tensor.h"
#include "core/lift.h"
#include "core/tape_above.h"
#include "core/torch_func.h"
#include "forward_ad/dual_tensor.h"
#include "reverse_ad/values.h"

namespace functx {
namespace {

namespace py = pybind11;

// The bits of `transforms_of`, as functx/_C.pyi has them.
constexpr int kIsWrapped = 1;
constexpr int kIsBatched = 2;
constexpr int kIsDifferentiatedBelow = 4;

// Without the cost of Python's isinstance, which asks the metaclass of Tensor.
bool is_tensor(PyObject* object) {
  return PyObject_TypeCheck(object, reinterpret_cast<PyTypeObject*>(THPVariableClass));
}

// Calls `visit` with each tensor in an argument, until it returns true.
template <class Visit>
bool any_tensor(PyObject* argument, const Visit& visit) {
  if (is_tensor(argument)) {
    return visit(THPVariable_Unpack(argument));
  }
  if (PyTuple_Check(argument) || PyList_Check(argument)) {
    const Py_ssize_t size = PySequence_Fast_GET_SIZE(argument);
    PyObject** items = PySequence_Fast_ITEMS(argument);
    return std::any_of(items, items + size,
                       [&](PyObject* item) { return any_tensor(item, visit); });
  }
  if (PyDict_Check(argument)) {
    PyObject* key = nullptr;
    PyObject* value = nullptr;
    for (Py_ssize_t position = 0; PyDict_Next(argument, &position, &key, &value);) {
      if (any_tensor(value, visit)) {
        return true;
      }
    }
  }
  return false;
}

// Whether autograd records what is done to the tensor, in its own stratum.
bool is_recorded(const Tensor& tensor) {
  const auto* meta = torch::autograd::impl::get_autograd_meta(tensor);
  return meta != nullptr && ((meta->requires_grad() && c10::GradMode::is_enabled()) ||
                             (meta->fw_grad_ != nullptr && !meta->fw_grad_->empty()));
}

int transforms_below(const Tensor& tensor);

int transforms_at_and_below(const Tensor& value) {
  return (is_recorded(value) ? kIsDifferentiatedBelow : 0) | transforms_below(value);
}

// Of what the tensor stands for; a tape that it is on itself does not count.
int transforms_below(const Tensor& tensor) {
  const Wrapper* wrapper = as_wrapper(tensor);
  if (wrapper == nullptr) {
    return 0;
  }
  int transforms = 0;
  if (!wrapper->is_its_value()) {
    transforms =
        wrapper->level()->transform == Transform::Vmap ? kIsBatched : kIsDifferentiatedBelow;
  }
  for (const Tensor& value : wrapper->values()) {
    transforms |= transforms_at_and_below(value);
  }
  return transforms;
}

LevelPtr inner_of(const LevelPtr& a, const LevelPtr& b) {
  return a == nullptr || (b != nullptr && b->id > a->id) ? b : a;
}

LevelPtr innermost_level_of(PyObject* arguments) {
  LevelPtr innermost;
  any_tensor(arguments, [&](const Tensor& tensor) {
    innermost = inner_of(innermost, inner_of(level_of(tensor), stratum_above(tensor)));
    return false;
  });
  return innermost;
}

bool any_wrapper(PyObject* arguments) {
  return any_tensor(arguments, [](const Tensor& tensor) { return as_wrapper(tensor) != nullptr; });
}

int transforms_of(PyObject* arguments) {
  const LevelPtr innermost = innermost_level_of(arguments);
  int transforms = kIsWrapped;
  any_tensor(arguments, [&](const Tensor& tensor) {
    // A tensor of an outer level is a value at the innermost one.
    transforms |=
        level_of(tensor) == innermost ? transforms_below(tensor) : transforms_at_and_below(tensor);
    return false;
  });
  return transforms;
}

// `change` of each tensor; what else is among the leaves stays.
template <class Change>
py::list map_tensors(const py::sequence& leaves, const Change& change) {
  py::list mapped(leaves.size());
  for (size_t i = 0; i < leaves.size(); ++i) {
    const py::object leaf = leaves[i];
    mapped[i] = is_tensor(leaf.ptr()) ? py::cast(change(i, THPVariable_Unpack(leaf.ptr()))) : leaf;
  }
  return mapped;
}

py::list lift_all(const LevelPtr& level, const py::sequence& leaves) {
  return map_tensors(leaves, [&](size_t, const Tensor& tensor) { return lift(tensor, level); });
}

py::list wrap_batched(const LevelPtr& level, const py::sequence& leaves,
                      const std::vector<bool>& batched) {
  return map_tensors(leaves, [&](size_t i, const Tensor& value) {
    return make_batched(level, {value, static_cast<bool>(batched[i])});
  });
}

py::tuple split_batched(const LevelPtr& level, const py::sequence& leaves) {
  std::vector<bool> batched(leaves.size(), false);
  const py::list values = map_tensors(leaves, [&](size_t i, const Tensor& tensor) {
    Batched split = unwrap_batched(level, tensor);
    batched[i] = split.is_batched;
    return std::move(split.value);
  });
  return py::make_tuple(values, batched);
}

void write_tangent(const LevelPtr& level, const Tensor& dual,
                   const std::optional<Tensor>& tangent) {
  const HideFrom hidden(*level);  // or the memory for it would be a dual itself
  at_level<DualTensor>(dual, *level)->write_tangent(tangent.value_or(Tensor()));
}

// As for levels, code in Python has no part in entering and leaving.
py::object call_outside(const LevelPtr& level, const py::object& function, const py::args& args) {
  const HideFrom hidden(*level);
  return function(*args);
}

py::object call_carrying_levels(const py::object& function, const py::args& args,
                                const py::kwargs& kwargs) {
  std::optional<CarriedLevels> carried;
  if (const auto levels = active_levels(); !levels.empty()) {
    carried.emplace(levels.vec());
  }
  return function(*args, **kwargs);
}

py::object call_assuming_derivatives(const Derivatives& derivatives, const py::object& function,
                                     const py::args& args, const py::kwargs& kwargs) {
  const AssumeDerivatives assume(derivatives);
  return function(*args, **kwargs);
}

// Every call of every autograd.Function begins with this one: pybind11 would take most of its time.
PyObject* transforms_of_arguments(PyObject*, PyObject* arguments) {
  return PyLong_FromLong(any_wrapper(arguments) ? transforms_of(arguments) : 0);
}

PyMethodDef methods[] = {{"transforms_of", transforms_of_arguments, METH_O, nullptr},
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

void bind_function_arguments(py::module_& m) {
  if (PyModule_AddFunctions(m.ptr(), methods) != 0) {
    throw py::error_already_set();
  }
  m.def("call_outside", &call_outside);
  m.def("call_carrying_levels", &call_carrying_levels);
  py::class_<Derivatives>(m, "Derivatives").def_readonly("count", &Derivatives::count);
  m.def("current_derivatives", &current_derivatives);
  m.def("call_assuming_derivatives", &call_assuming_derivatives);
  m.def("innermost_level_of",
        [](const py::tuple& leaves) { return innermost_level_of(leaves.ptr()); });
  m.def("yields_to_torch_func", [](const py::tuple& leaves) {
    return torch_func_depth() > innermost_level_of(leaves.ptr())->torch_func_depth;
  });
  m.def("lift", &lift_all);
  m.def("wrap_batched", &wrap_batched);
  m.def("split_batched", &split_batched);
  m.def("write_tangent", &write_tangent);
}

}  // namespace functx
