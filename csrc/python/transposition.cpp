#include "python/transposition.h"

#include <torch/csrc/utils/pybind.h>

#include <optional>

#include "core/saved_tensor_hooks.h"
#include "forward_ad/transposition.h"

namespace functx {
namespace {

namespace py = pybind11;

using MaybeTensors = std::vector<std::optional<Tensor>>;

std::vector<Tensor> or_undefined(const MaybeTensors& tensors) {
  std::vector<Tensor> maybe_undefined;
  for (const auto& tensor : tensors) {
    maybe_undefined.push_back(tensor.value_or(Tensor()));
  }
  return maybe_undefined;
}

}  // namespace

void bind_transposition(py::module_& m) {
  m.def("probe",
        [](c10::SymIntArrayRef shape, at::ScalarType dtype, at::Device device, bool compares) {
          return probe(compares ? Probe::ToCompare : Probe::ToRecord, shape, dtype, device);
        });
  py::class_<RandomState>(m, "RandomState")
      .def(py::init([](const MaybeTensors& tensors) { return RandomState(or_undefined(tensors)); }))
      .def("swap", &RandomState::swap);
  m.def("has_numbers",
        [](const MaybeTensors& tensors) { return has_numbers(or_undefined(tensors)); });
  m.def("without_saved_tensor_hooks", [](const py::function& call) {
    const NoSavedTensorHooks no_hooks;
    return call();
  });
  m.def("is_transpose", [](const MaybeTensors& gradients, const MaybeTensors& tangents,
                           const MaybeTensors& cotangents, const MaybeTensors& output_tangents) {
    return is_transpose(or_undefined(gradients), or_undefined(tangents), or_undefined(cotangents),
                        or_undefined(output_tangents));
  });
}

}  // namespace functx
