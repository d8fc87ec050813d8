// Registration of kernels and rules with the dispatcher.
#pragma once

#include <ATen/core/boxing/KernelFunction.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>

namespace functx {

// Registers `kernel` in the place of the one of ours that is there, if any.
void register_kernel(const c10::OperatorName& op, c10::DispatchKey key, c10::KernelFunction kernel);

// The kernel of ours that is there.
std::optional<c10::KernelFunction> registered_kernel(const c10::OperatorName& op,
                                                     c10::DispatchKey key);

// How an operator is dealt with when a wrapper is among its arguments.
enum class Coverage : uint8_t { None, Rule, Decomposition, Fallback };

// Notes how `op` is covered. False if it is covered already.
bool claim(const c10::OperatorName& op, Coverage coverage);
Coverage coverage_of(const c10::OperatorName& op);

// Runs `body` while the extension is loaded.
struct AtLoad {
  template <class Body>
  explicit AtLoad(Body body) {
    body();
  }
};

// What registration files put their tables into. They are run before the first transform, and not
// while the extension is loaded: then nobody could be told what went wrong.
struct RuleTable {
  explicit RuleTable(void (*registrations)());
};
void run_rule_tables();

}  // namespace functx

// A table of rules: FUNCTX_RULES(pointwise) { ... registrations ... }
#define FUNCTX_RULES(family)                                                        \
  static void functx_register_##family();                                           \
  static const ::functx::RuleTable functx_rules_##family(functx_register_##family); \
  static void functx_register_##family()
