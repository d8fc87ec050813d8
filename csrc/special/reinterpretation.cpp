// x.view(dtype), whose result PyTorch takes for a constant even where the elements stay what they
// are, or become the parts of complex numbers.
#include <ATen/ops/view_as_complex.h>
#include <ATen/ops/view_as_real.h>

#include <algorithm>
#include <optional>

#include "batching/rewrite.h"
#include "core/keys.h"
#include "forward_ad/rule.h"
#include "reverse_ad/constants.h"
#include "reverse_ad/recordable.h"
#include "reverse_ad/recorded.h"

namespace functx {
namespace {

constexpr const char* kRemedy =
    "It reads the bits of numbers as others: detach it if that is what you want, or use "
    "Tensor.to(dtype).";

bool is_number(at::ScalarType dtype) {
  return c10::isFloatingType(dtype) || c10::isComplexType(dtype);
}

// Whether pairs of elements lie where complex numbers could.
bool lies_in_pairs(const Tensor& x) {
  const auto sizes = x.sizes();
  const auto strides = x.strides();
  const auto is_even = [](int64_t number) { return number % 2 == 0; };
  return !sizes.empty() && sizes.back() > 0 && is_even(sizes.back()) && strides.back() == 1 &&
         is_even(x.storage_offset()) && std::all_of(strides.begin(), strides.end() - 1, is_even);
}

// The result as a view that has a derivative, if there is one.
std::optional<Tensor> differentiable_view(const Tensor& x, at::ScalarType dtype) {
  const auto from = x.scalar_type();
  if (dtype == from) {
    return ops::alias::call(x);
  }
  if (x.is_conj() || x.is_neg()) {
    return std::nullopt;
  }
  if (c10::isFloatingType(from) && c10::isComplexType(dtype) &&
      c10::toRealValueType(dtype) == from && lies_in_pairs(x)) {
    return at::view_as_complex(x.unflatten(-1, {-1, 2}));
  }
  if (c10::isComplexType(from) && c10::toRealValueType(from) == dtype && x.dim() > 0 &&
      x.stride(-1) == 1) {
    return at::view_as_real(x).flatten(-2);
  }
  return std::nullopt;
}

void warn_if_number(const Tensor& x, at::ScalarType dtype) {
  if (needs_tape(x) && is_number(dtype)) {
    warn_of_constant(ops::view_dtype::name, kRemedy);
  }
}

std::optional<Tensor> on_wrappers(const LevelPtr&, bool records, const Tensor& x,
                                  at::ScalarType dtype) {
  auto view = differentiable_view(x, dtype);
  if (!view && records) {
    warn_if_number(x, dtype);
  }
  return view;
}

Tensor on_plain_tensors(c10::DispatchKeySet keys, const Tensor& x, at::ScalarType dtype) {
  if (const auto view = differentiable_view(x, dtype)) {
    return *view;
  }
  if (is_recorded_on_plain_tensors(x.requires_grad())) {
    warn_if_number(x, dtype);
  }
  return ops::view_dtype::redispatch(keys & kBelowGradKey, x, dtype);
}

Dual other_bits(const Dual& x, at::ScalarType dtype) {
  TORCH_CHECK_NOT_IMPLEMENTED(!is_number(dtype), "functx.jvp: ", ops::view_dtype::name, " from ",
                              x.primal.scalar_type(), " to ", dtype, " has no derivative. ",
                              kRemedy);
  return {x.primal.view(dtype), {}};
}

}  // namespace

FUNCTX_RULES(reinterpretation) {
  dual_rule<ops::view_dtype, other_bits>();
  rewritten<ops::view_dtype, on_wrappers>();
  register_kernel(c10::OperatorName(ops::view_dtype::name, ops::view_dtype::overload_name),
                  kGradKey,
                  c10::KernelFunction::makeFromUnboxedFunction(TORCH_FN(on_plain_tensors)));
}

}  // namespace functx
