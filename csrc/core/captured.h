// Tensors that were there before a transform was entered: its function has captured them.
//
// A plain tensor does not show its age, but Python can only write to a tensor that it holds as an
// object, and the allocator of those objects (csrc/python/births.cpp) tells us of each one that is
// made while a grad level is active. The arguments of the function were there before, too, and
// belong to it all the same.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/function_schema.h>
#include <ATen/core/stack.h>
#include <c10/core/GradMode.h>

#include <optional>

#include "core/level.h"

namespace functx {

using at::Tensor;

// What stands for a tensor in Python, or null if nothing does, or something whose birth nobody
// notes: then the tensor does not count as captured.
using ObjectOf = const void* (*)(const Tensor& tensor);
// Whether an object is among the arguments of a level that are not differentiated.
using HasArgument = bool (*)(const Level& level, const void* object);
void set_view_of_python(ObjectOf object_of, HasArgument has_argument);

// Births are noted, for each thread, while at least one grad level is active.
void begin_noting_births();
void end_noting_births();
bool notes_births();
void note_birth(const void* object);

namespace detail {

inline bool requires_grad(const Tensor& tensor) { return tensor.requires_grad(); }
inline bool requires_grad(const std::optional<Tensor>& tensor) {
  return tensor.has_value() && tensor->requires_grad();
}
template <class T>
bool requires_grad(const T&) {
  return false;
}

void refuse_captured(const char* name, const Tensor& self);

}  // namespace detail

// For an in-place operator that autograd is about to record. Raises if it writes what is tracked
// (one of `sources`) into a tensor from outside of a grad level, which would stay on the tape when
// the level is left. An argument is noted, for its level to take it off.
template <class... Sources>
void check_not_captured(const char* name, const Tensor& self, const Sources&... sources) {
  if (c10::GradMode::is_enabled() && (detail::requires_grad(sources) || ...)) {
    detail::refuse_captured(name, self);
  }
}
void check_not_captured(const c10::FunctionSchema& schema, const torch::jit::Stack& stack);

}  // namespace functx
