// The Python face of the extension; functx/_C.pyi documents it. Nothing outside of csrc/python
// knows Python.
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <optional>

#include "batching/batched_tensor.h"
#include "batching/boxed_rules.h"
#include "batching/dims.h"
#include "batching/loop_switches.h"
#include "core/alias.h"
#include "core/coverage.h"
#include "core/lift.h"
#include "core/nested.h"
#include "core/stand_ins.h"
#include "forward_ad/sharing.h"
#include "python/batching_rules.h"
#include "python/births.h"
#include "python/c_functions.h"
#include "python/data_setter.h"
#include "python/first_use.h"
#include "python/function_arguments.h"
#include "python/instance_checks.h"
#include "python/item_access.h"
#include "python/jvp_rules.h"
#include "python/questions.h"
#include "python/rule_handle.h"
#include "python/transposition.h"
#include "reverse_ad/engine_call.h"
#include "reverse_ad/tape.h"
#include "reverse_ad/ties.h"

namespace functx {
namespace {

namespace py = pybind11;

Randomness parse_randomness(const std::string& name) {
  for (const auto each : {Randomness::Error, Randomness::Different, Randomness::Same}) {
    if (name == name_of(each)) {
      return each;
    }
  }
  throw py::value_error(
      "functx.vmap: randomness must be \"error\", \"different\" or \"same\", not \"" + name + "\"");
}

bool is_tensor(const py::handle& object) { return THPVariable_Check(object.ptr()); }

// A constant that has outlived its transform is its value.
Tensor tensor_of(const py::handle& object) {
  return value_if_outlived(THPVariable_Unpack(object.ptr()));
}

py::object wrap(Tensor tensor) {
  return py::reinterpret_steal<py::object>(THPVariable_Wrap(std::move(tensor)));
}

py::list wrap_all(std::vector<Tensor> tensors) {
  py::list wrapped(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    wrapped[i] = wrap(std::move(tensors[i]));
  }
  return wrapped;
}

// With the batch in front. A view, since the caller may know the tensor by its geometry, which
// operators in place may change; but PyTorch has no views of some tensors.
Tensor batch_in_front(const Tensor& leaf, int64_t dim) {
  const bool is_mkldnn = leaf.layout() == at::kMkldnn;
  const bool is_per_channel = leaf.is_quantized() && leaf.qscheme() != at::kPerTensorAffine;
  if (dim == 0 && (is_mkldnn || is_per_channel || leaf.key_set().has(c10::DispatchKey::Python))) {
    return leaf;
  }
  TORCH_CHECK_NOT_IMPLEMENTED(
      !is_mkldnn && !is_per_channel, "functx.vmap: ",
      is_mkldnn ? "a tensor of the layout of mkldnn" : "a tensor that is quantized per channel",
      " can only be mapped in its dimension 0, but in_dims is ", dim,
      ", and PyTorch cannot move a dimension of it. Call ",
      is_mkldnn ? "to_dense()" : "dequantize()", " first.");
  return leaf.movedim(dim, 0);
}

Tensor batch_one(const LevelPtr& level, const Tensor& leaf, int64_t dim) {
  check_has_shape(leaf, level->transform);
  return make_batched(level, {batch_in_front(leaf, dim), true});
}

py::list batch(const LevelPtr& level, const py::sequence& leaves, const py::sequence& dims) {
  py::list batched(leaves.size());
  for (size_t i = 0; i < leaves.size(); ++i) {
    const py::object leaf = leaves[i];
    const py::object dim = dims[i];
    batched[i] =
        dim.is_none() ? leaf : wrap(batch_one(level, tensor_of(leaf), dim.cast<int64_t>()));
  }
  return batched;
}

Tensor unbatch_one(const LevelPtr& level, const Tensor& leaf, const std::optional<int64_t>& dim) {
  const Batched result = unwrap_batched(level, leaf);
  if (!dim.has_value()) {
    if (result.is_batched) {
      throw py::value_error(
          "functx.vmap: out_dims is None for an output that differs between examples. Give the "
          "position of its batch dimension as an int instead.");
    }
    return result.value;
  }
  if (result.is_batched && *dim == 0) {
    return result.value;
  }
  const int64_t rank = result.logical_dim() + 1;
  if (*dim < -rank || *dim >= rank) {
    throw py::index_error("functx.vmap: out_dims does not fit an output of shape " +
                          c10::str(leaf.sym_sizes()) +
                          ", which gets the mapped dimension besides: Dimension out of range "
                          "(expected to be in range of [" +
                          std::to_string(-rank) + ", " + std::to_string(rank - 1) + "], but got " +
                          std::to_string(*dim) + ")");
  }
  Tensor batch = ensure_batched(result, level->batch_size);
  if (!result.is_batched && batch.layout() == at::kStrided) {
    // Each example has its own: what is written to one is not to be in the others, nor in a tensor
    // that the function has only passed on.
    batch = batch.clone(at::MemoryFormat::Contiguous);
  }
  return batch.movedim(0, *dim);
}

py::list unbatch(const LevelPtr& level, const py::sequence& leaves, const py::sequence& out_dims) {
  py::list values(leaves.size());
  for (size_t i = 0; i < leaves.size(); ++i) {
    const py::object leaf = leaves[i];
    const py::object dim = out_dims[i];
    values[i] = is_tensor(leaf)
                    ? wrap(unbatch_one(level, tensor_of(leaf), dim.cast<std::optional<int64_t>>()))
                    : leaf;
  }
  return values;
}

// The tangent is the caller's: in-place operators must not write to it, nor to the primal if the
// two are one.
Dual dual_of(const LevelPtr& level, const Tensor& primal, const Tensor& tangent) {
  if (!may_share_memory(primal, tangent)) {
    return {primal, tangent, /*owns_tangent=*/false};
  }
  const HideFrom hidden(*level);
  return {primal, tangent.clone()};
}

py::list make_duals(const LevelPtr& level, const py::sequence& primals,
                    const py::sequence& tangents) {
  py::list duals(primals.size());
  for (size_t i = 0; i < primals.size(); ++i) {
    const py::object primal = primals[i];
    const py::object tangent = tangents[i];
    duals[i] = wrap(make_dual(level, dual_of(level, tensor_of(primal),
                                             tangent.is_none() ? Tensor() : tensor_of(tangent))));
  }
  return duals;
}

py::tuple unpack_duals(const LevelPtr& level, const py::sequence& leaves) {
  py::list primals(leaves.size());
  py::list tangents(leaves.size());
  for (size_t i = 0; i < leaves.size(); ++i) {
    const py::object leaf = leaves[i];
    if (auto* wrapper = at_level<DualTensor>(tensor_of(leaf), *level)) {
      wrapper->lend_tangent();
    }
    Dual dual = unwrap_dual(level, tensor_of(leaf));
    primals[i] = wrap(std::move(dual.primal));
    tangents[i] = dual.has_tangent() ? wrap(std::move(dual.tangent)) : py::none();
  }
  return py::make_tuple(primals, tangents);
}

py::list release_all(const LevelPtr& level, const py::sequence& outputs) {
  Outside outside(*level);
  py::list released(outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const py::object output = outputs[i];
    released[i] = is_tensor(output) ? wrap(release(*level, tensor_of(output), outside)) : output;
  }
  return released;
}

std::vector<Tensor> or_undefined(const std::vector<std::optional<Tensor>>& tensors) {
  std::vector<Tensor> maybe_undefined;
  for (const auto& tensor : tensors) {
    maybe_undefined.push_back(tensor.value_or(Tensor()));
  }
  return maybe_undefined;
}

py::list run_pullback(const LevelPtr& level, const std::vector<Tensor>& outputs,
                      const std::vector<Tensor>& inputs,
                      const std::vector<std::optional<Tensor>>& cotangents, bool retain_graph) {
  const std::vector<Tensor> seeds = or_undefined(cotangents);
  std::vector<Tensor> gradients;
  {
    const py::gil_scoped_release without_gil;
    gradients = pullback(*level, outputs, inputs, seeds, retain_graph);
  }
  return wrap_all(std::move(gradients));
}

py::tuple run_engine_seeds(const std::vector<Tensor>& outputs,
                           const std::vector<std::optional<Tensor>>& gradients,
                           const std::vector<Tensor>& inputs) {
  return py::tuple(wrap_all(engine_seeds(outputs, or_undefined(gradients), inputs)));
}

py::tuple unwrap(const Tensor& tensor) {
  const LevelPtr level = level_of(tensor);
  if (level == nullptr) {
    throw py::type_error("functx.debug_unwrap: the tensor is not a wrapper of any transform");
  }
  if (level->transform == Transform::Vmap) {
    Batched batched = unwrap_batched(level, tensor);
    return py::make_tuple(wrap(std::move(batched.value)), py::none(), batched.is_batched);
  }
  Dual dual = unwrap_dual(level, tensor);
  return py::make_tuple(wrap(dual.primal),
                        dual.has_tangent() ? wrap(dual.tangent) : py::none().cast<py::object>(),
                        false);
}

// The plain tensor that `tensor` is nothing but, or null.
std::optional<Tensor> value_of_constant(Tensor tensor) {
  while (const Wrapper* wrapper = as_wrapper(tensor)) {
    if (!wrapper->is_its_value() || tensor.requires_grad()) {
      return std::nullopt;
    }
    tensor = wrapper->values()[0];
  }
  return tensor;
}

// An operator called through torch.ops has no handler that turns C++ warnings into Python's.
void warn_in_python(const std::string& message) {
  const py::gil_scoped_acquire gil;
  if (PyErr_WarnEx(PyExc_UserWarning, message.c_str(), 1) != 0) {
    throw py::error_already_set();
  }
}

// The level is left here, whatever happens, and not by code in Python: before and behind any of
// that an interrupt, or a function that traces it, may raise.
class Entered {
 public:
  explicit Entered(LevelPtr level) : level_(std::move(level)) {}
  ~Entered() {
    if (!is_done_) {
      let_go(*level_);
    }
    // Nobody holds these any longer.
    level_->call = {};
    pop(level_);
  }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;

  // Without pybind11's lists of arguments: every transform is such a call.
  py::object call(const py::function& body) {
    const py::object level = py::cast(level_);
    auto result = py::reinterpret_steal<py::object>(PyObject_CallOneArg(body.ptr(), level.ptr()));
    if (!result) {
      throw py::error_already_set();
    }
    is_done_ = true;
    return result;
  }

 private:
  LevelPtr level_;
  bool is_done_ = false;
};

py::object in_grad(const py::object& arguments, const py::function& body) {
  const LevelPtr level = push_grad();
  Entered entered(level);
  if (!arguments.is_none()) {
    const auto call = arguments.cast<py::tuple>();
    level->call = {call[0].ptr(), call[1].ptr(), call[2].ptr()};
  }
  return entered.call(body);
}

void bind_levels(py::module_& m) {
  py::class_<Level, LevelPtr>(m, "Level")
      .def_readonly("id", &Level::id)
      .def_readonly("alive", &Level::alive)
      .def_readonly("batch_size", &Level::batch_size)
      .def_property_readonly("kind", [](const Level& level) { return name_of(level.transform); })
      .def_property_readonly("randomness",
                             [](const Level& level) { return name_of(level.randomness); });
  m.def("push_vmap", [](int64_t batch_size, const std::string& randomness) {
    return push_vmap(batch_size, parse_randomness(randomness));
  });
  m.def("push_jvp", &push_jvp);
  m.def("push_grad", &push_grad);
  m.def("pop", &pop);
  m.def("in_vmap", [](int64_t batch_size, const std::string& randomness, const py::function& body) {
    return Entered(push_vmap(batch_size, parse_randomness(randomness))).call(body);
  });
  m.def("in_jvp", [](const py::function& body) { return Entered(push_jvp()).call(body); });
  m.def("in_grad", &in_grad);
  m.def("active_levels", [] { return active_levels().vec(); });
  m.def("innermost_level",
        [] { return active_levels().empty() ? LevelPtr() : active_levels().back(); });
}

void bind_wrappers(py::module_& m) {
  m.def("batch", &batch);
  m.def("unbatch", &unbatch);
  m.def("is_batched_at", [](const LevelPtr& level, const Tensor& tensor) {
    return unwrap_batched(level, tensor).is_batched;
  });
  m.def("make_duals", &make_duals);
  m.def("unpack_duals", &unpack_duals);
  m.def("level_of", &level_of);
  m.def("unwrap", &unwrap);
  m.def("value_of_constant", &value_of_constant);
}

void bind_reverse_mode(py::module_& m) {
  m.def("track", [](std::vector<Tensor> inputs) {
    std::transform(inputs.begin(), inputs.end(), inputs.begin(), value_if_outlived);
    return wrap_all(track(inputs));
  });
  m.def("release", &release_all);
  m.def("let_go", [](const LevelPtr& level) { let_go(*level); });
  m.def("pullback", &run_pullback);
  m.def("engine_seeds", &run_engine_seeds);
  m.def("without_tape", [](const Tensor& tensor) {
    return as_wrapper(tensor) != nullptr ? alias_wrapper(tensor) : tensor;
  });
  py::class_<Ties, std::shared_ptr<Ties>>(m, "Ties");
  m.def("ties_below",
        [](const Tensor& tensor) { return std::const_pointer_cast<Ties>(ties_below(tensor)); });
  m.def("tie", [](const Tensor& tensor, const std::shared_ptr<Ties>& ties) {
    return wrap(functx::tie(tensor, ties));
  });
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  check_import();
  set_warning_sink(warn_in_python);
  bind_levels(m);
  bind_wrappers(m);
  bind_reverse_mode(m);
  bind_questions(m);
  bind_item_access(m);
  bind_births(m);
  bind_c_functions(m);
  bind_data_setter(m);
  bind_first_use(m);
  bind_instance_checks(m);
  bind_rule_handles(m);
  bind_batching_rules(m);
  bind_jvp_rules(m);
  bind_function_arguments(m);
  bind_transposition(m);
  m.def("operator_coverage", [] {
    return operator_coverage(
        [](const c10::OperatorHandle& op) { return find_boxed_batching_rule(op) != nullptr; });
  });
  m.def("warn_on_loop_fallback", &warn_on_loop);
  m.def("allow_loop_fallback", &allow_loop);
  m.def("loop_fallback_allowed", &loop_is_allowed);
  m.def("take_looped_operators", &take_looped_operators);
}

}  // namespace functx
