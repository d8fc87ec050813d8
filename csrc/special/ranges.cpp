// linspace and logspace between ends that are tensors, which PyTorch reads as numbers. A point of
// the first is a weighted mean of the ends, and one of the second is a power of it.
#include <ATen/ops/linspace.h>
#include <ATen/ops/real.h>

#include <cmath>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "forward_ad/conform.h"
#include "forward_ad/rule.h"
#include "reverse_ad/recordable.h"
#include "reverse_ad/recorded.h"

namespace functx {
namespace {

// How much of each point is the first end, and the second. They may be kept for a pullback, which
// is to outlive the levels that are active now.
std::pair<Tensor, Tensor> weights(const Tensor& points) {
  const HideFrom all_levels;
  const auto dtype = c10::toRealValueType(points.scalar_type());
  const Tensor second = at::linspace(0, 1, points.size(0), points.options().dtype(dtype));
  return {ops::rsub_Scalar::call(second, 1, 1), second};
}

// The derivative of base**y by y; where the power is zero, whatever the base.
Tensor slope_of_power(const Tensor& power, double base) {
  return power.mul(std::log(base)).masked_fill(power.eq(0), 0);
}

const Tensor& primal_of(const Dual& dual) { return dual.primal; }
const at::Scalar& primal_of(const at::Scalar& number) { return number; }

Tensor part_of(const Dual& end, const Tensor& weight) {
  return end.has_tangent() ? end.tangent.mul(weight) : Tensor();
}
Tensor part_of(const at::Scalar&, const Tensor&) { return {}; }

template <class Op, class Signature = typename Op::schema>
struct Range;

template <class Op, class Start, class End, class... Rest>
struct Range<Op, Tensor(Start, End, Rest...)> {
  static Dual with_tangent(const auto& start, const auto& end, const std::decay_t<Rest>&... rest) {
    const Tensor points = Op::call(primal_of(start), primal_of(end), rest...);
    if (!is_differentiable(points)) {
      return {points, {}};
    }
    const auto [of_start, of_end] = weights(points);
    Tensor tangent = sum_of(part_of(start, of_start), part_of(end, of_end));
    if constexpr (is_logarithmic) {
      tangent = tangent.mul(slope_of_power(points, base_of(rest...)));
    }
    return {points, tangent.to(points.scalar_type())};
  }

  static std::optional<Tensor> recorded(Start start, End end, Rest... rest) {
    std::vector<Tensor> ends;
    collect(start, ends);
    collect(end, ends);
    if (!std::any_of(ends.begin(), ends.end(), needs_tape)) {
      return std::nullopt;
    }
    Tensor points = below_tape([&] { return Op::call(start, end, rest...); });
    if (!is_differentiable(points)) {
      return points;
    }
    const auto [of_start, of_end] = weights(points);
    auto pullback = [start = number(start), end = number(end), of_start, of_end,
                     constants = std::tuple<std::decay_t<Rest>...>(rest...)](
                        const Tensor& gradient, const std::vector<Tensor>& saved) {
      Tensor of_mean = gradient;
      if constexpr (is_logarithmic) {
        const auto power_at = [&](const auto&... rest) {
          return slope_of_power(Op::call(restored<Start>(start, saved.front()),
                                         restored<End>(end, saved.back()), rest...),
                                base_of(rest...));
        };
        of_mean = of_mean.mul(std::apply(power_at, constants).conj());
      }
      std::vector<Tensor> gradients;
      if constexpr (is_tensor<Start>) {
        gradients.push_back(gradient_of(saved.front(), of_mean.mul(of_start)));
      }
      if constexpr (is_tensor<End>) {
        gradients.push_back(gradient_of(saved.back(), of_mean.mul(of_end)));
      }
      return gradients;
    };
    return record(Op::name, std::move(points), ends, ends, std::move(pullback));
  }

 private:
  template <class Argument>
  static constexpr bool is_tensor = std::is_same_v<std::decay_t<Argument>, Tensor>;

  // The number of steps comes first, then the base.
  static constexpr bool is_logarithmic =
      std::is_same_v<std::tuple_element_t<1, std::tuple<std::decay_t<Rest>...>>, double>;

  static double base_of(const auto&... rest) { return std::get<1>(std::tie(rest...)); }

  static void collect(const Tensor& end, std::vector<Tensor>& ends) { ends.push_back(end); }
  static void collect(const at::Scalar&, std::vector<Tensor>&) {}

  static at::Scalar number(const Tensor&) { return {}; }
  static at::Scalar number(const at::Scalar& end) { return end; }

  template <class Argument>
  static decltype(auto) restored(const at::Scalar& number, const Tensor& tensor) {
    if constexpr (is_tensor<Argument>) {
      return (tensor);
    } else {
      return (number);
    }
  }

  static Tensor gradient_of(const Tensor& end, const Tensor& parts) {
    const Tensor sum = parts.sum();
    return (end.is_complex() || !sum.is_complex() ? sum : at::real(sum)).to(end.scalar_type());
  }
};

template <class... Ops>
void ranges() {
  ((dual_rule<Ops, [](const auto&... args) { return Range<Ops>::with_tangent(args...); }>(),
    recordable<Ops, Range<Ops>::recorded>()),
   ...);
}

}  // namespace

FUNCTX_RULES(differentiated_ranges) {
  ranges<ops::linspace_Tensor_Tensor, ops::linspace_Tensor_Scalar, ops::linspace_Scalar_Tensor,
         ops::logspace_Tensor_Tensor, ops::logspace_Tensor_Scalar, ops::logspace_Scalar_Tensor>();
}

}  // namespace functx
