// How a dual rule is registered.
//
//   Dual sum(const Dual& self, std::optional<at::ScalarType> dtype) { ... }
//
//   FUNCTX_RULES(jvp_reductions) {
//     dual_rule<ops::sum, sum>();
//   }
//
// A rule is a function with the parameters of the operator, in which every tensor has become a
// `Dual`, an optional tensor a `Dual` whose primal may be undefined, and a list of tensors a
// `std::vector<Dual>`. It returns a `Dual`, or a tuple or vector of them. An undefined tangent is
// zero; a rule is not called unless at least one argument has a tangent, so it need not look for
// that case. families.h has rules for whole families.
#pragma once

#include <ATen/Operators.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "core/kernel.h"
#include "forward_ad/sharing.h"

namespace functx {

namespace ops = at::_ops;

namespace detail {

inline Dual unpack_dual(const LevelPtr& level, const Tensor& tensor) {
  return unwrap_dual(level, tensor);
}

inline Dual unpack_dual(const LevelPtr& level, const std::optional<Tensor>& tensor) {
  return tensor.has_value() ? unwrap_dual(level, *tensor) : Dual{};
}

template <class Tensors>
std::vector<Dual> unpack_duals(const LevelPtr& level, const Tensors& tensors) {
  std::vector<Dual> unpacked;
  unpacked.reserve(tensors.size());
  for (const auto& tensor : tensors) {
    unpacked.push_back(unpack_dual(level, tensor));
  }
  return unpacked;
}

inline std::vector<Dual> unpack_dual(const LevelPtr& level, const at::ITensorListRef& tensors) {
  return unpack_duals(level, tensors);
}

inline std::vector<Dual> unpack_dual(const LevelPtr& level, const at::TensorList& tensors) {
  return unpack_duals(level, tensors);
}

inline std::vector<Dual> unpack_dual(const LevelPtr& level,
                                     const c10::List<std::optional<Tensor>>& tensors) {
  std::vector<Dual> unpacked;
  unpacked.reserve(tensors.size());
  for (const std::optional<Tensor> tensor : tensors) {
    unpacked.push_back(unpack_dual(level, tensor));
  }
  return unpacked;
}

template <class T>
const T& unpack_dual(const LevelPtr&, const T& other) {
  return other;
}

inline bool has_tangent(const Dual& dual) { return dual.has_tangent(); }
inline bool has_tangent(const std::vector<Dual>& duals) {
  return std::any_of(duals.begin(), duals.end(), [](const Dual& d) { return d.has_tangent(); });
}
template <class T>
bool has_tangent(const T&) {
  return false;
}

// The operator's own argument types, made of primals.
inline const Tensor& primal_of(const Dual& dual, const Tensor&) { return dual.primal; }
inline std::optional<Tensor> primal_of(const Dual& dual, const std::optional<Tensor>&) {
  return dual.defined() ? std::make_optional(dual.primal) : std::nullopt;
}
template <class List>
std::vector<Tensor> primal_of(const std::vector<Dual>& duals, const List&) {
  std::vector<Tensor> primals;
  primals.reserve(duals.size());
  for (const Dual& dual : duals) {
    primals.push_back(dual.primal);
  }
  return primals;
}
inline c10::List<std::optional<Tensor>> primal_of(const std::vector<Dual>& duals,
                                                  const c10::List<std::optional<Tensor>>&) {
  c10::List<std::optional<Tensor>> primals;
  for (const Dual& dual : duals) {
    primals.push_back(dual.defined() ? std::make_optional(dual.primal) : std::nullopt);
  }
  return primals;
}
template <class T>
const T& primal_of(const T& other, const T&) {
  return other;
}

inline Tensor pack_dual(const LevelPtr& level, const Lenders& lenders, Dual result) {
  return make_dual(level, lenders.settle(std::move(result)));
}

inline Tensor pack_dual(const LevelPtr& level, const Lenders&, Tensor result) {
  return make_dual(level, {std::move(result), {}});
}

template <class Element>
std::vector<Tensor> pack_dual(const LevelPtr& level, const Lenders& lenders,
                              std::vector<Element> results) {
  std::vector<Tensor> packed;
  packed.reserve(results.size());
  for (auto& result : results) {
    packed.push_back(pack_dual(level, lenders, std::move(result)));
  }
  return packed;
}

// Elements that are not tensors (philox seeds, sizes) pass through.
template <class T>
T pack_dual(const LevelPtr&, const Lenders&, T result) {
  return result;
}

template <class... Results>
auto pack_dual(const LevelPtr& level, const Lenders& lenders, std::tuple<Results...> results) {
  return std::apply(
      [&](auto&... each) { return std::make_tuple(pack_dual(level, lenders, std::move(each))...); },
      results);
}

template <class Op, auto rule, class Signature = typename Op::schema>
struct DualAdapter;

template <class Op, auto rule, class Result, class... Args>
struct DualAdapter<Op, rule, Result(Args...)> {
  static Result call(const LevelPtr& level, Args... args) {
    return call_unpacked(level, std::forward_as_tuple(args...), unpack_dual(level, args)...);
  }

 private:
  template <class Originals, class... Unpacked>
  static Result call_unpacked(const LevelPtr& level, const Originals& originals,
                              const Unpacked&... args) {
    return std::apply(
        [&](const auto&... original) {
          if ((has_tangent(args) || ...)) {
            return pack_dual(level, Lenders(level, original...), rule(args...));
          }
          return pack_dual(level, Lenders(level), Op::call(primal_of(args, original)...));
        },
        originals);
  }
};

}  // namespace detail

template <class Op, auto rule>
void dual_rule() {
  Rules<Op>::dual = &detail::DualAdapter<Op, rule>::call;
  install_kernel<Op>();
}

}  // namespace functx
