// In-place operators under grad: a value that is being differentiated may be written into tensors
// that the function has made, not into those it has captured. On plain tensors, since autograd's
// own kernels run, this is what sees them: a key that is included while a grad level is active.
// Operators that have no kernel here pass by it at no cost.
#include <ATen/Operators.h>

#include "core/captured.h"
#include "core/keys.h"
#include "core/registry.h"

namespace functx {
namespace {

namespace ops = at::_ops;

template <class Op, class Signature = typename Op::schema>
struct WatchedWrite;

template <class Op, class... Args>
struct WatchedWrite<Op, Tensor&(Tensor&, Args...)> {
  static Tensor& run(c10::DispatchKeySet keys, Tensor& self, Args... args) {
    check_not_captured(Op::name, self, args...);
    return Op::redispatch(keys & kBelowGradKey, self, std::forward<Args>(args)...);
  }
};

template <class... Ops>
void watch() {
  (register_kernel(c10::OperatorName(Ops::name, Ops::overload_name), kGradKey,
                   c10::KernelFunction::makeFromUnboxedFunction(TORCH_FN(WatchedWrite<Ops>::run))),
   ...);
}

// All that take another tensor and have a derivative with respect to it.
FUNCTX_RULES(watched_writes) {
  watch<ops::copy_, ops::fill__Tensor, ops::add__Tensor, ops::sub__Tensor, ops::mul__Tensor,
        ops::div__Tensor, ops::div__Tensor_mode, ops::pow__Tensor, ops::lerp__Scalar,
        ops::lerp__Tensor, ops::addcmul_, ops::addcdiv_, ops::atan2_, ops::hypot_,
        ops::copysign__Tensor, ops::fmod__Tensor, ops::remainder__Tensor, ops::xlogy__Tensor,
        ops::ldexp_, ops::igamma_, ops::igammac_, ops::heaviside_, ops::floor_divide__Tensor,
        ops::nextafter_, ops::_add_relu__Tensor>();
  watch<ops::clamp__Tensor, ops::clamp_min__Tensor, ops::clamp_max__Tensor>();
  watch<ops::addmm_, ops::addmv_, ops::addr_, ops::addbmm_, ops::baddbmm_>();
  watch<ops::index_put_, ops::_index_put_impl_, ops::index_add_, ops::index_copy_,
        ops::index_reduce_, ops::index_fill__int_Tensor, ops::masked_fill__Tensor,
        ops::masked_scatter_, ops::put_, ops::scatter__src, ops::scatter__reduce, ops::scatter_add_,
        ops::scatter_reduce__two>();
}

}  // namespace
}  // namespace functx
