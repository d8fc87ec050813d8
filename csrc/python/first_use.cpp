#include "python/first_use.h"

#include <pybind11/stl.h>

#include <utility>

#include "core/keys.h"
#include "core/load.h"

namespace functx {
namespace {

namespace py = pybind11;

// Lives as long as Python.
PyObject* preparation = nullptr;

// The first transform of a thread of autograd's own is entered without the lock.
void prepare_in_python() {
  const py::gil_scoped_acquire gil;
  py::reinterpret_borrow<py::object>(preparation)();
}

void prepare_threads_by(py::function prepare) {
  preparation = prepare.release().ptr();
  also_prepare_threads_by(prepare_in_python);
}

}  // namespace

void check_import() {
  if (const auto taken = find_taken_key()) {
    throw py::import_error(message_of(*taken));
  }
}

void bind_first_use(py::module_& m) {
  m.def("prepare_threads_by", &prepare_threads_by);
  m.def("prepare_thread", [] {
    if (!is_thread_prepared) {
      prepare_thread();
    }
  });
  m.def("dispatch_keys",
        [] { return std::pair(static_cast<int>(kFrontKey), static_cast<int>(kModeKey)); });
}

}  // namespace functx
