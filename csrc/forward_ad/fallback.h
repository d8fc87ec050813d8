// The tiers of jvp for operators without a typed rule. Each takes the arguments of a call, of which
// one at least has a tangent, and puts the results on the stack.
#pragma once

#include "core/boxed.h"

namespace functx {

// By PyTorch's forward-mode formula.
void differentiate_natively(const c10::OperatorHandle& op, const LevelPtr& level,
                            const torch::jit::Stack& arguments, torch::jit::Stack* stack);

// By PyTorch's reverse-mode formula.
void differentiate_by_double_reverse(const c10::OperatorHandle& op, const LevelPtr& level,
                                     const torch::jit::Stack& arguments, torch::jit::Stack* stack);

// For arguments without tangents: the operator on the primals.
void run_on_primals(const c10::OperatorHandle& op, const LevelPtr& level,
                    const torch::jit::Stack& arguments, torch::jit::Stack* stack);

// Raises the exception that is being handled again, as one with more to say: `before` it and
// `after` it. Set by csrc/python for exceptions of Python's; others come back.
using Elaborate = void (*)(const std::string& before, const std::string& after);
void set_elaborate(Elaborate elaborate);

}  // namespace functx
