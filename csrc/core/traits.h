// What the dispatcher says of an operator, read once per operator.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

namespace functx {

struct OperatorTraits {
  explicit OperatorTraits(const c10::OperatorHandle& op);

  c10::OperatorHandle handle;
  // The keys that let autograd record the operator on a wrapper.
  c10::DispatchKeySet tape_keys;
  // Decomposes by itself into other operators, which then come back to us.
  bool is_composite;
  // Some result aliases an argument without having been written to.
  bool is_view;
  // The same, and the argument can get a gradient by it: all but detach.
  bool is_differentiable_view;
  // Results go to `out=` arguments.
  bool has_out;
};

template <class Op>
const OperatorTraits& traits_of() {
  static const OperatorTraits traits(
      c10::Dispatcher::singleton().findSchemaOrThrow(Op::name, Op::overload_name));
  return traits;
}

// For operators known only at run time.
const OperatorTraits& traits_of(const c10::OperatorHandle& op);

}  // namespace functx
