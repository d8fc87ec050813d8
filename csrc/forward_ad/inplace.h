// In-place operators under jvp.
#pragma once

#include "forward_ad/rule.h"

namespace functx {

// Makes `tangent` the tangent of `self`, whose primal has just been written to by operator `name`.
// Raises if `self` is not a tensor of `level` and so cannot hold one.
void write_back(const char* name, const LevelPtr& level, const Tensor& self, const Tensor& tangent);

// Raises in the same case before anything was written.
void check_can_hold_tangent(const char* name, const LevelPtr& level, const Tensor& self,
                            bool has_tangent);

namespace detail {

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
    const Dual result = unwrap_dual(level, Rules<Op>::dual(level, self, args...));
    if (result.primal.scalar_type() == primal.scalar_type() &&
        result.primal.sym_sizes() == primal.sym_sizes()) {
      primal.copy_(result.primal);
    } else {
      // Casts, or raises what PyTorch raises.
      InplaceOp::call(primal, primal_of(unpack_dual(level, args), args)...);
    }
    write_back(InplaceOp::name, level, self, result.tangent);
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
    write_back(InplaceOp::name, level, self, tangent);
    return self;
  }
};

}  // namespace detail

}  // namespace functx
