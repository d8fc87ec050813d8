// In-place operators under jvp.
#pragma once

#include <c10/core/GradMode.h>

#include "forward_ad/rule.h"

namespace functx {

// Makes `tangent` the tangent of `self`, whose primal has just been written to by operator `name`.
// Raises if `self` is not a tensor of `level` and so cannot hold one.
void write_tangent(const char* name, const LevelPtr& level, const Tensor& self,
                   const Tensor& tangent);

// Likewise with the tangent of `result`, whose primal was written.
void write_tangent_of(const char* name, const LevelPtr& level, const Tensor& self,
                      const Tensor& result);

// Raises in the same case before anything was written.
void check_can_hold_tangent(const char* name, const LevelPtr& level, const Tensor& self,
                            bool has_tangent);

namespace detail {

// Whether a stratum below may save this value for its backward.
inline bool may_be_saved(const Tensor& tensor) {
  return tensor.defined() && (tensor.requires_grad() || as_wrapper(tensor) != nullptr);
}
inline bool may_be_saved(const Dual& dual) {
  return may_be_saved(dual.primal) || may_be_saved(dual.tangent);
}
inline bool may_be_saved(const std::vector<Dual>& duals) {
  return std::any_of(duals.begin(), duals.end(), [](const Dual& d) { return may_be_saved(d); });
}
template <class T>
bool may_be_saved(const T&) {
  return false;
}

// Whether a tape below may record what a rule does with these: then it has to use operators that
// can be differentiated, where a fused one cannot.
template <class... Tensors>
bool is_recorded_below(const Tensors&... tensors) {
  return c10::GradMode::is_enabled() && (may_be_saved(tensors) || ...);
}

// The old value of a tensor that is about to be written to.
inline Tensor old_value(const LevelPtr& level, const Dual& self) {
  return make_dual(level,
                   {self.primal.clone(), self.has_tangent() ? self.tangent.clone() : Tensor()});
}

// The result of a rule on `self`, to be written back: that it may share the tangent of `self` is
// nothing to remember.
template <class Rule>
Tensor keep_own_tangent(const LevelPtr& level, const Tensor& self, const Rule& rule) {
  auto* wrapper = at_level<DualTensor>(self, *level);
  const bool owned = wrapper != nullptr && wrapper->owns_tangent();
  Tensor result = rule();
  if (owned) {
    wrapper->take_tangent_back();
  }
  return result;
}

// An in-place operator by the rule of its functional form: the rule runs on the old values, then
// both halves are written.
template <class InplaceOp, class Op, class Signature = typename InplaceOp::schema>
struct Inplace;

template <class InplaceOp, class Op, class... Args>
struct Inplace<InplaceOp, Op, Tensor&(Tensor&, Args...)> {
  static Tensor& call(const LevelPtr& level, Tensor& self, Args... args) {
    const bool any_tangent =
        has_tangent(unpack_dual(level, self)) || (has_tangent(unpack_dual(level, args)) || ...);
    check_can_hold_tangent(InplaceOp::name, level, self, any_tangent);
    Tensor primal = unwrap_dual(level, self).primal;
    if (!any_tangent) {
      InplaceOp::call(primal, primal_of(unpack_dual(level, args), args)...);
      return self;
    }
    // What the rule saves for a backward must not be what is written to next.
    const bool is_saved =
        c10::GradMode::is_enabled() &&
        (may_be_saved(unpack_dual(level, self)) || (may_be_saved(unpack_dual(level, args)) || ...));
    const Tensor old = is_saved ? old_value(level, unwrap_dual(level, self)) : self;
    const Tensor result = keep_own_tangent(
        level, self, [&]() -> Tensor { return Rules<Op>::dual(level, old, args...); });
    const Tensor& new_primal = at_level<DualTensor>(result, *level)->primal();
    if (new_primal.scalar_type() == primal.scalar_type() &&
        new_primal.sym_sizes() == primal.sym_sizes()) {
      primal.copy_(new_primal);
    } else {
      // Casts, or raises what PyTorch raises.
      InplaceOp::call(primal, primal_of(unpack_dual(level, args), args)...);
    }
    write_tangent_of(InplaceOp::name, level, self, result);
    return self;
  }
};

template <class InplaceOp, auto tangent_rule, class Signature = typename InplaceOp::schema>
struct InplaceByRule;

template <class InplaceOp, auto tangent_rule, class... Args>
struct InplaceByRule<InplaceOp, tangent_rule, Tensor&(Tensor&, Args...)> {
  static Tensor& call(const LevelPtr& level, Tensor& self, Args... args) {
    const Tensor tangent = tangent_rule(unpack_dual(level, self), unpack_dual(level, args)...);
    check_can_hold_tangent(InplaceOp::name, level, self, tangent.defined());
    Tensor primal = unwrap_dual(level, self).primal;
    InplaceOp::call(primal, primal_of(unpack_dual(level, args), args)...);
    write_tangent(InplaceOp::name, level, self, tangent);
    return self;
  }
};

}  // namespace detail

}  // namespace functx
