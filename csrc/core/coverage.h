// Sees to it that every operator in the dispatcher does something sensible on a wrapper.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <map>
#include <string>

namespace functx {

// Gives `op` its kernels unless a rule did: boxed ones, which let it decompose where it does so by
// itself and run the transform's fallback where it does not.
void cover(const c10::OperatorHandle& op);

// Covers all operators registered so far; called once all rules are. Later ones arrive at the boxed
// fallback of the front key and are covered there.
void cover_all_operators();

// For every operator: "rule", "decomposition" or "fallback"; `has_rule` tells of a boxed rule.
std::map<std::string, std::string> operator_coverage(bool (*has_rule)(const c10::OperatorHandle&));

}  // namespace functx
