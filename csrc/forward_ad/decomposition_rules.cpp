// Spectra without vectors: PyTorch's forward formulas need the vectors, and PyTorch asks for them
// only where it sees a gradient of its own.
#include "core/boxed.h"
#include "forward_ad/rule.h"

namespace functx {
namespace {

template <class Op, class Signature = typename Op::schema>
struct Native;

// The native fallback for `Op`.
template <class Op, class Result, class... Args>
struct Native<Op, Result(Args...)> {
  static Result call(Args... args) {
    static const auto fallback = c10::BoxedKernel::makeFromFunction<&boxed_kernel>();
    return c10::impl::BoxedKernelWrapper<Result(Args...)>::call(fallback, traits_of<Op>().handle,
                                                                c10::DispatchKeySet(kBackKey),
                                                                std::forward<Args>(args)...);
  }
};

std::tuple<Tensor, Tensor, Tensor> svd(const LevelPtr&, const Tensor& a, bool full_matrices, bool,
                                       std::optional<c10::string_view> driver) {
  return Native<ops::_linalg_svd>::call(a, full_matrices, true, driver);
}

std::tuple<Tensor, Tensor> eigh(const LevelPtr&, const Tensor& a, c10::string_view triangle, bool) {
  return Native<ops::_linalg_eigh>::call(a, triangle, true);
}

Tensor eigvals(const LevelPtr&, const Tensor& a) {
  return std::get<0>(Native<ops::linalg_eig>::call(a));
}

}  // namespace

FUNCTX_RULES(jvp_spectra) {
  Rules<ops::_linalg_svd>::dual = &svd;
  install_kernel<ops::_linalg_svd>();
  Rules<ops::_linalg_eigh>::dual = &eigh;
  install_kernel<ops::_linalg_eigh>();
  Rules<ops::_linalg_eigvals>::dual = &eigvals;
  install_kernel<ops::_linalg_eigvals>();
}

}  // namespace functx
