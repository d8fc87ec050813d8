// A rule written in Python, from its registration to its removal.
#pragma once

#include <pybind11/pybind11.h>

#include "core/runtime_rules.h"

namespace functx {

// Runs a rule of Python's in the place of a boxed one. The caller holds the GIL.
using RunRule = void (*)(const pybind11::handle& rule, const c10::OperatorHandle& op,
                         const LevelPtr& level, torch::jit::Stack* stack);

class RuleHandle {
 public:
  RuleHandle(Transform transform, const std::string& name, const std::string& overload,
             pybind11::object rule, RunRule run);

  // Undoes the registration.
  void remove();

 private:
  Transform transform_;
  c10::OperatorHandle op_;
  RuntimeRulePtr rule_;
};

void bind_rule_handles(pybind11::module_& m);

}  // namespace functx
