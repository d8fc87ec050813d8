#include "python/rule_handle.h"

#include <c10/core/SafePyObject.h>
#include <torch/csrc/PyInterpreter.h>

namespace functx {

namespace py = pybind11;

namespace {

// A rule in Python as one of the core. It is dropped on any thread, with or without the GIL.
RuntimeRulePtr wrap_rule(py::object rule, RunRule run) {
  auto holder = std::make_shared<const c10::SafePyObject>(rule.release().ptr(), getPyInterpreter());
  return std::make_shared<const RuntimeRule>([holder, run](const c10::OperatorHandle& op,
                                                           const LevelPtr& level,
                                                           torch::jit::Stack* stack) {
    const py::gil_scoped_acquire gil;
    run(holder->ptr(getPyInterpreter()), op, level, stack);
  });
}

}  // namespace

RuleHandle::RuleHandle(Transform transform, const std::string& name, const std::string& overload,
                       py::object rule, RunRule run)
    : transform_(transform),
      op_(c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), overload.c_str())),
      rule_(wrap_rule(std::move(rule), run)) {
  add_runtime_rule(transform_, op_, rule_);
}

void RuleHandle::remove() {
  if (rule_ != nullptr) {
    remove_runtime_rule(transform_, op_, rule_);
    rule_.reset();
  }
}

void bind_rule_handles(py::module_& m) {
  py::class_<RuleHandle>(m, "RuleHandle").def("remove", &RuleHandle::remove);
}

}  // namespace functx
