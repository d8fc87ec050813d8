// Sees to it that every operator in the dispatcher does something sensible on a wrapper.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <map>
#include <string>

namespace functx {

// Gives `op` its kernels unless a rule did: a fallthrough where it decomposes by itself, the boxed
// fallback where it does not.
void cover(const c10::OperatorHandle& op);

// Covers all operators registered so far; called once all rules are. Later ones arrive at the boxed
// fallback of the front key and are covered there.
void cover_all_operators();

// A fallthrough leads to torch.func's transforms, if any are active, before the operator
// decomposes. That is wrong for wrappers of a level inside of theirs: when the first such level is
// entered, all operators that decompose get a kernel that decides.
void decompose_before_torch_func();

// For every operator: "rule", "decomposition" or "fallback".
std::map<std::string, std::string> operator_coverage();

}  // namespace functx
