// Rules for whole families of operators under jvp. One line registers one operator or many.
//
//   linear<ops::neg, ops::sum_dim_IntList>();        the same operator on the tangent
//   linear_in<ops::scatter_add, 0, 3>();             linear in the arguments at these positions
//   linear_in_first<ops::gather>();                  that is, in the one at position 0
//   linear_view<ops::transpose_int>();               likewise, sharing memory
//   multilinear<ops::dot, ops::_trilinear>();        product rule over all tensor arguments
//   elementwise<ops::sin, [](auto& t, auto& x, auto&) { return t * x.cos(); }>();
//   partials<ops::hypot, by_self, by_other>();       a sum of one term for each first argument
//   nondifferentiable<ops::eq_Tensor>();             the tangent is zero
//   inplace<ops::mul__Tensor, ops::mul_Tensor>();    as the functional operator, written back
//   inplace_view<ops::t_, ops::t>();                 a tensor that becomes a view of itself
#pragma once

#include <ATen/ops/zeros_like.h>

#include <array>

#include "forward_ad/conform.h"
#include "forward_ad/inplace.h"
#include "forward_ad/rule.h"

namespace functx {

namespace detail {

// Tangents of an argument for operators that are linear in all of their arguments together.
inline Tensor tangent_of(const Dual& dual, const Tensor&) {
  return dual.has_tangent() || !dual.defined() ? dual.tangent : at::zeros_like(dual.primal);
}
inline std::optional<Tensor> tangent_of(const Dual& dual, const std::optional<Tensor>&) {
  return dual.defined() ? std::make_optional(tangent_of(dual, dual.primal)) : std::nullopt;
}
template <class List>
std::vector<Tensor> tangent_of(const std::vector<Dual>& duals, const List&) {
  std::vector<Tensor> tangents;
  tangents.reserve(duals.size());
  for (const Dual& dual : duals) {
    tangents.push_back(tangent_of(dual, dual.primal));
  }
  return tangents;
}
template <class T>
const T& tangent_of(const T& other, const T&) {
  return other;
}

template <class Op, class Signature = typename Op::schema>
struct Linear;

template <class Op, class Result, class... Args>
struct Linear<Op, Result(Args...)> {
  static Result call(const LevelPtr& level, Args... args) {
    return call_unpacked(
        std::forward_as_tuple(args...),
        [&](Dual result) { return make_dual(level, std::move(result)); },
        unpack_dual(level, args)...);
  }

  static Result call_view(const LevelPtr& level, Args... args) {
    const Tensor& source = std::get<0>(std::forward_as_tuple(args...));
    return call_unpacked(
        std::forward_as_tuple(args...),
        [&](Dual result) { return make_dual_view(level, source, std::move(result)); },
        unpack_dual(level, args)...);
  }

 private:
  template <class Originals, class Wrap, class... Unpacked>
  static Result call_unpacked(const Originals& originals, const Wrap& wrap,
                              const Unpacked&... args) {
    const bool any_tangent = (has_tangent(args) || ...);
    return std::apply(
        [&](const auto&... original) {
          Result primals = Op::call(primal_of(args, original)...);
          return any_tangent && can_have_tangent(primals)
                     ? pair(std::move(primals), Op::call(tangent_of(args, original)...), wrap)
                     : pair(std::move(primals), Result{}, wrap);
        },
        originals);
  }

  // A cast to integers, sum(dtype=torch.int64)...
  static bool can_have_tangent(const Tensor& primal) { return is_differentiable(primal); }
  static bool can_have_tangent(const std::vector<Tensor>&) { return true; }

  template <class Wrap>
  static Tensor pair(Tensor primal, Tensor tangent, const Wrap& wrap) {
    return wrap(Dual{std::move(primal), std::move(tangent)});
  }

  template <class Wrap>
  static std::vector<Tensor> pair(std::vector<Tensor> primals, std::vector<Tensor> tangents,
                                  const Wrap& wrap) {
    tangents.resize(primals.size());
    std::vector<Tensor> duals;
    duals.reserve(primals.size());
    for (size_t i = 0; i < primals.size(); ++i) {
      duals.push_back(wrap(Dual{std::move(primals[i]), std::move(tangents[i])}));
    }
    return duals;
  }
};

template <class Op, class Signature, size_t... positions>
struct LinearIn;

template <class Op, class... Args, size_t... positions>
struct LinearIn<Op, Tensor(Args...), positions...> {
  static Tensor call(const LevelPtr& level, Args... args) {
    return differentiate(level, std::index_sequence_for<Args...>{}, args...);
  }

 private:
  template <size_t... all>
  static Tensor differentiate(const LevelPtr& level, std::index_sequence<all...>, Args... args) {
    const auto duals = std::make_tuple(unpack_dual(level, args)...);
    Dual result{Op::call(primal_of(std::get<all>(duals), args)...), {}};
    if ((has_tangent(std::get<positions>(duals)) || ...)) {
      result.tangent = Op::call(pick<all>(std::get<all>(duals), args)...);
    }
    return make_dual(level, std::move(result));
  }

  // Indices, masks and weights are what they are.
  template <size_t position, class Unpacked, class Arg>
  static decltype(auto) pick(const Unpacked& dual, const Arg& arg) {
    if constexpr (((position == positions) || ...)) {
      return tangent_of(dual, arg);
    } else {
      return primal_of(dual, arg);
    }
  }
};

template <class Op, class Signature = typename Op::schema>
struct Multilinear;

template <class Op, class... Args>
struct Multilinear<Op, Tensor(Args...)> {
  static Tensor call(const LevelPtr& level, Args... args) {
    return differentiate(level, std::index_sequence_for<Args...>{}, args...);
  }

 private:
  // The sum over all arguments with a tangent of the operator with that argument replaced by it.
  template <size_t... positions>
  static Tensor differentiate(const LevelPtr& level, std::index_sequence<positions...>,
                              Args... args) {
    const auto duals = std::make_tuple(unpack_dual(level, args)...);
    const auto call_with = [&](size_t replaced) {
      return Op::call(pick(std::get<positions>(duals), args, positions == replaced)...);
    };
    constexpr size_t none = sizeof...(Args);
    Tensor primal = call_with(none);
    Tensor tangent;
    const auto add_term = [&](size_t position, bool is_active) {
      if (is_active) {
        tangent = sum_of(std::move(tangent), call_with(position));
      }
    };
    (add_term(positions, has_tangent(std::get<positions>(duals))), ...);
    return make_dual(level, {std::move(primal), std::move(tangent)});
  }

  static const Tensor& pick(const Dual& dual, const Tensor&, bool is_replaced) {
    return is_replaced ? dual.tangent : dual.primal;
  }
  template <class T>
  static const T& pick(const T& other, const T&, bool) {
    return other;
  }
};

// derivative(tangent, x, y, rest...) of y = op(x, rest...).
template <class Op, auto derivative, class Signature = typename Op::schema>
struct Elementwise;

template <class Op, auto derivative, class... Rest>
struct Elementwise<Op, derivative, Tensor(const Tensor&, Rest...)> {
  static Tensor call(const LevelPtr& level, const Tensor& self, Rest... rest) {
    const Dual x = unwrap_dual(level, self);
    Dual y{Op::call(x.primal, rest...), {}};
    if (x.has_tangent()) {
      y.tangent = derivative(x.tangent, x.primal, y.primal, rest...);
    }
    return pack_dual(level, Lenders(level, self), std::move(y));
  }
};

// Each derivative(tangent, y, args...) is the term of one of the first arguments of y =
// op(args...).
template <class Op, class Signature, auto... derivatives>
struct Partials;

template <class Op, class... Args, auto... derivatives>
struct Partials<Op, Tensor(Args...), derivatives...> {
  static Tensor call(const LevelPtr& level, Args... args) {
    return differentiate(level, std::make_index_sequence<sizeof...(derivatives)>{},
                         std::forward_as_tuple(args...), unpack_dual(level, args)...);
  }

 private:
  template <size_t... positions, class Originals, class... Unpacked>
  static Tensor differentiate(const LevelPtr& level, std::index_sequence<positions...>,
                              const Originals& originals, const Unpacked&... args) {
    return std::apply(
        [&](const auto&... original) {
          Tensor primal = Op::call(primal_of(args, original)...);
          Tensor tangent;
          const auto add_term = [&](const Dual& dual, const auto& derivative) {
            if (dual.has_tangent()) {
              tangent = sum_of(std::move(tangent),
                               derivative(dual.tangent, primal, primal_of(args, original)...));
            }
          };
          const auto duals = std::forward_as_tuple(args...);
          (add_term(std::get<positions>(duals), derivatives), ...);
          return pack_dual(level, Lenders(level, original...),
                           conform(std::move(tangent), std::move(primal)));
        },
        originals);
  }
};

template <class Op, class Signature = typename Op::schema>
struct Nondifferentiable;

template <class Op, class Result, class... Args>
struct Nondifferentiable<Op, Result(Args...)> {
  static Result call(const LevelPtr& level, Args... args) {
    return pack_dual(level, Lenders(level), Op::call(primal_of(unpack_dual(level, args), args)...));
  }
};

template <class InplaceOp, class ViewOp, class Signature = typename InplaceOp::schema>
struct InplaceView;

template <class InplaceOp, class ViewOp, class... Args>
struct InplaceView<InplaceOp, ViewOp, Tensor&(Tensor&, Args...)> {
  static Tensor& call(const LevelPtr& level, Tensor& self, Args... args) {
    // The only tensor among the arguments, so it is of this level.
    auto* wrapper = at_level<DualTensor>(self, *level);
    const Dual old = wrapper->dual();
    wrapper->replace(ViewOp::call(old.primal, args...),
                     old.has_tangent() ? ViewOp::call(old.tangent, args...) : Tensor());
    return self;
  }
};

}  // namespace detail

template <class... Ops>
void linear() {
  ((Rules<Ops>::dual = &detail::Linear<Ops>::call, install_kernel<Ops>()), ...);
}

template <class Op, size_t... positions>
void linear_in() {
  Rules<Op>::dual = &detail::LinearIn<Op, typename Op::schema, positions...>::call;
  install_kernel<Op>();
}

template <class... Ops>
void linear_in_first() {
  (linear_in<Ops, 0>(), ...);
}

template <class... Ops>
void linear_view() {
  ((Rules<Ops>::dual = &detail::Linear<Ops>::call_view, install_kernel<Ops>()), ...);
}

template <class... Ops>
void multilinear() {
  ((Rules<Ops>::dual = &detail::Multilinear<Ops>::call, install_kernel<Ops>()), ...);
}

template <class Op, auto derivative>
void elementwise() {
  Rules<Op>::dual = &detail::Elementwise<Op, derivative>::call;
  install_kernel<Op>();
}

template <class Op, auto... derivatives>
void partials() {
  Rules<Op>::dual = &detail::Partials<Op, typename Op::schema, derivatives...>::call;
  install_kernel<Op>();
}

template <class... Ops>
void nondifferentiable() {
  ((Rules<Ops>::dual = &detail::Nondifferentiable<Ops>::call, install_kernel<Ops>()), ...);
}

template <class InplaceOp, class Op>
void inplace() {
  Rules<InplaceOp>::dual = &detail::Inplace<InplaceOp, Op>::call;
  install_kernel<InplaceOp>();
}

template <class InplaceOp, class ViewOp>
void inplace_view() {
  Rules<InplaceOp>::dual = &detail::InplaceView<InplaceOp, ViewOp>::call;
  install_kernel<InplaceOp>();
}

// `tangent_rule` has the parameters of a dual rule and returns the new tangent only; it is called
// before the primal is written to.
template <class InplaceOp, auto tangent_rule>
void inplace_rule() {
  Rules<InplaceOp>::dual = &detail::InplaceByRule<InplaceOp, tangent_rule>::call;
  install_kernel<InplaceOp>();
}

}  // namespace functx
