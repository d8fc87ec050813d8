#include "forward_ad/transposition.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/real.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "core/nested.h"
#include "core/torch_func.h"
#include "core/tracked.h"

namespace functx {
namespace {

bool is_half(at::ScalarType dtype) { return at::isReducedFloatingType(dtype); }

// How large the elements are. In half precision there is room for less.
double scale(Probe kind, at::ScalarType dtype) {
  const bool is_small = kind == Probe::ToRecord;
  if (dtype == at::kHalf || dtype == at::kComplexHalf) {
    return std::ldexp(1, is_small ? -6 : 8);
  }
  return std::ldexp(1, is_small ? -20 : 30);
}

double tolerance(at::ScalarType dtype) {
  switch (at::toRealValueType(dtype)) {
    case at::kDouble:
      return 1e-7;
    case at::kFloat:
      return 1e-3;
    default:
      return 0.1;
  }
}

// The sum of the products of two lists of tensors, and that of the absolute values of the products.
class Pairing {
 public:
  void add(const Tensor& left, const Tensor& right) {
    if (!left.defined() || !right.defined()) {
      return;
    }
    tolerance_ =
        std::max({tolerance_, tolerance(left.scalar_type()), tolerance(right.scalar_type())});
    const Tensor products = product(numbers(left), numbers(right));
    accumulate(sum_, products.sum());
    accumulate(magnitude_, products.abs().sum());
  }

  const Tensor& sum() const { return sum_; }
  const Tensor& magnitude() const { return magnitude_; }
  double tolerance() const { return tolerance_; }

 private:
  static double tolerance(at::ScalarType dtype) { return functx::tolerance(dtype); }

  static Tensor numbers(const Tensor& tensor) {
    const Tensor dense = tensor.layout() == at::kStrided ? tensor : tensor.to_dense();
    return is_half(dense.scalar_type()) ? dense.to(at::kFloat) : dense;
  }

  static Tensor product(const Tensor& left, const Tensor& right) {
    if (left.is_complex() && right.is_complex()) {
      return at::real(left.conj().mul(right));
    }
    return (left.is_complex() ? at::real(left) : left)
        .mul(right.is_complex() ? at::real(right) : right);
  }

  static void accumulate(Tensor& total, const Tensor& term) {
    total = total.defined() ? total.add(term) : term;
  }

  Tensor sum_;
  Tensor magnitude_;
  double tolerance_ = 0;
};

Pairing pair(const std::vector<Tensor>& left, const std::vector<Tensor>& right) {
  Pairing pairing;
  for (size_t i = 0; i < left.size(); ++i) {
    pairing.add(left[i], right[i]);
  }
  return pairing;
}

Tensor total(const Tensor& left, const Tensor& right) {
  return !left.defined() ? right : !right.defined() ? left : left.add(right);
}

Tensor difference(const Tensor& left, const Tensor& right) {
  return !left.defined() ? right : !right.defined() ? left : left.sub(right);
}

}  // namespace

Tensor probe(Probe kind, c10::SymIntArrayRef sizes, at::ScalarType dtype, at::Device device) {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  const auto shape = c10::asIntArrayRefSlowOpt(sizes);
  if (!shape.has_value()) {
    return at::ones_symint(sizes, options);
  }
  // The largest of one are not the largest of the other, and where one is positive the other is
  // not.
  const bool is_first = kind == Probe::ToRecord;
  const double factor = scale(kind, dtype);
  return at::linspace((is_first ? 1.4 : -0.9) * factor, (is_first ? -0.9 : -1.7) * factor,
                      c10::multiply_integers(*shape), options)
      .view(*shape);
}

RandomState::RandomState(const std::vector<Tensor>& tensors) {
  std::vector<at::Device> devices{at::Device(at::kCPU)};
  for (const Tensor& tensor : tensors) {
    if (tensor.defined() && !tensor.is_meta() &&
        std::find(devices.begin(), devices.end(), tensor.device()) == devices.end()) {
      devices.push_back(tensor.device());
    }
  }
  for (const at::Device& device : devices) {
    at::Generator generator = at::globalContext().defaultGenerator(device);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    states_.emplace_back(generator, generator.get_state());
  }
}

void RandomState::swap() {
  for (auto& [generator, state] : states_) {
    const std::lock_guard<std::mutex> lock(generator.mutex());
    Tensor current = generator.get_state();
    generator.set_state(state);
    state = std::move(current);
  }
}

bool has_numbers(const std::vector<Tensor>& tensors) {
  if (torch_func_is_active() || c10::impl::TorchDispatchModeTLS::any_modes_set()) {
    return false;
  }
  return std::all_of(tensors.begin(), tensors.end(), [](const Tensor& tensor) {
    if (!tensor.defined()) {
      return true;
    }
    const Tensor value = innermost_value(tensor);
    return !value.is_meta() && !value.key_set().has_any(kForeignWrapperKeys);
  });
}

bool is_transpose(const std::vector<Tensor>& gradients, const std::vector<Tensor>& tangents,
                  const std::vector<Tensor>& cotangents,
                  const std::vector<Tensor>& output_tangents) {
  const at::NoGradGuard no_grad;
  const Pairing inputs = pair(gradients, tangents);
  const Pairing outputs = pair(cotangents, output_tangents);
  const Tensor magnitude = total(inputs.magnitude(), outputs.magnitude());
  if (!magnitude.defined()) {
    return true;
  }
  const double tolerance = std::max(inputs.tolerance(), outputs.tolerance());
  // Not to be confused by what has become zero for being too small.
  constexpr double least = 1e-30;
  const Tensor bound = magnitude.mul(tolerance).add(least);
  const Tensor differs = difference(inputs.sum(), outputs.sum()).abs().gt(bound);
  return !innermost_value(differs).any().item<bool>();
}

}  // namespace functx
