// One line says what the derivative of an operator is, and is used in both modes.
//
//   derivative<ops::special_bessel_j0>([](auto& x) { return ops::special_bessel_j1::call(x).neg();
//   });
//
// For operators that PyTorch takes for constants, and for our own. The slope is a function of the
// operator's arguments, of which it differentiates by the first, element by element; written in
// operators that have derivatives, it gives those of all orders. `order` arguments, of which a
// function is constant in steps, may be tensors too.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "forward_ad/families.h"
#include "reverse_ad/recordable.h"
#include "reverse_ad/recorded.h"

namespace functx {

// Under grad, PyTorch refuses `out=` of an operator that has a derivative; so do we for `op`.
void refuse_gradient_into_out(const c10::OperatorName& op);

namespace detail {

template <class Op, auto slope, class Signature = typename Op::schema>
struct Sloped;

template <class Op, auto slope, class... Rest>
struct Sloped<Op, slope, Tensor(const Tensor&, Rest...)> {
  static Tensor tangent(const Tensor& t, const Tensor&, const Tensor& x,
                        const std::decay_t<Rest>&... rest) {
    return t.mul(slope(x, rest...));
  }

  // The call as a tape records it: nothing where it has nothing to record.
  static std::optional<Tensor> recorded(const Tensor& x, Rest... rest) {
    if (!needs_tape(x)) {
      return std::nullopt;
    }
    Tensor y = below_tape([&] { return Op::call(x, rest...); });
    std::vector<Tensor> saved{x};
    (save(rest, saved), ...);
    return record(Op::name, std::move(y), {x}, saved,
                  [constants = std::tuple<std::decay_t<Rest>...>(constant(rest)...)](
                      const Tensor& gradient, const std::vector<Tensor>& saved) {
                    return std::vector<Tensor>{pull_back(gradient, saved, constants)};
                  });
  }

 private:
  static void save(const Tensor& tensor, std::vector<Tensor>& saved) { saved.push_back(tensor); }
  template <class T>
  static void save(const T&, std::vector<Tensor>&) {}

  static Tensor constant(const Tensor&) { return {}; }
  template <class T>
  static const T& constant(const T& other) {
    return other;
  }

  static const Tensor& restored(const Tensor&, const std::vector<Tensor>& saved) {
    return saved.at(1);
  }
  template <class T>
  static const T& restored(const T& other, const std::vector<Tensor>&) {
    return other;
  }

  static Tensor pull_back(const Tensor& gradient, const std::vector<Tensor>& saved,
                          const std::tuple<std::decay_t<Rest>...>& constants) {
    const Tensor& x = saved.front();
    const auto slope_at = [&](const auto&... rest) { return slope(x, restored(rest, saved)...); };
    return gradient.mul(std::apply(slope_at, constants))
        .sum_to_size_symint(x.sym_sizes())
        .to(x.scalar_type());
  }
};

}  // namespace detail

template <class Op, auto slope>
void derivative() {
  partials<Op, detail::Sloped<Op, slope>::tangent>();
  recordable<Op, detail::Sloped<Op, slope>::recorded>();
  const std::string overload = Op::overload_name;
  refuse_gradient_into_out({Op::name, overload.empty() ? "out" : overload + "_out"});
}

}  // namespace functx
