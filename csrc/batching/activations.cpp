// Softmax, gated units and their derivatives: several tensors of one rank, and one dim that counts
// in all of them. And the activation with a weight.
#include <ATen/ops/broadcast_tensors.h>

#include "batching/dims.h"
#include "batching/pointwise.h"
#include "batching/reduction.h"
#include "batching/rule.h"

namespace functx {
namespace {

class AlongOneDim {
 public:
  template <class... Args>
  explicit AlongOneDim(const LevelPtr& level, const Args&... args) : level_(level) {
    (see(args), ...);
  }

  Tensor align(const Tensor& tensor) const {
    const Batched x = unwrap_batched(level_, tensor);
    if (!is_batched_) {
      return x.value;
    }
    const Tensor value = ensure_batched(x, level_->batch_size);
    // A scalar example has dims 0 and -1: it borrows a dimension while the operator runs.
    return rank_ == 0 ? value.unsqueeze(1) : value;
  }

  int64_t align(int64_t dim) const {
    return is_batched_ ? physical_dim(dim, std::max<int64_t>(rank_, 1), true) : dim;
  }

  at::ScalarType align(at::ScalarType dtype) const { return dtype; }

  Tensor pack(const Tensor& result) const {
    return make_batched(level_,
                        {is_batched_ && rank_ == 0 ? result.squeeze(1) : result, is_batched_});
  }

 private:
  void see(const Tensor& tensor) {
    rank_ = tensor.dim();
    is_batched_ = is_batched_ || unwrap_batched(level_, tensor).is_batched;
  }

  template <class T>
  void see(const T&) {}

  const LevelPtr& level_;
  int64_t rank_ = 0;
  bool is_batched_ = false;
};

template <class Op, class Signature = typename Op::schema>
struct AllAlongDim;

template <class Op, class... Args>
struct AllAlongDim<Op, Tensor(Args...)> {
  static Tensor call(const LevelPtr& level, Args... args) {
    const AlongOneDim operands(level, args...);
    return operands.pack(Op::call(operands.align(args)...));
  }
};

template <class... Ops>
void all_along_dim() {
  ((Rules<Ops>::batching = &AllAlongDim<Ops>::call, install_kernel<Ops>()), ...);
}

// --- pointwise operators whose kernels do not broadcast

// Gradient and input of one shape. Kernels take expanded ones as they are.
std::vector<Tensor> of_one_shape(const Batched& grad, const Batched& self) {
  const int64_t rank = std::max(grad.logical_dim(), self.logical_dim());
  return at::broadcast_tensors({align_rank(grad, rank), align_rank(self, rank)});
}

// oneDNN's makes the result by the input, and reads the gradient as if it had that shape.
Batched gelu_backward(const Batched& grad, const Batched& self, c10::string_view approximate) {
  const auto operands = of_one_shape(grad, self);
  return {ops::gelu_backward::call(operands[0], operands[1], approximate),
          grad.is_batched || self.is_batched};
}

// Makes the result by the gradient. The buffer is empty where the kernel needs none.
Batched log_sigmoid_backward(const Batched& grad, const Batched& self, const Batched& buffer) {
  const auto operands = of_one_shape(grad, self);
  return {ops::log_sigmoid_backward::call(operands[0], operands[1],
                                          align_rank(buffer, self.logical_dim())),
          detail::any_batched(grad, self, buffer)};
}

}  // namespace

FUNCTX_RULES(activations) {
  batching_rule<ops::gelu_backward, gelu_backward>();
  batching_rule<ops::log_sigmoid_backward, log_sigmoid_backward>();
  pointwise<ops::_prelu_kernel, ops::_prelu_kernel_backward, ops::rrelu_with_noise_backward>();
  along_dims<ops::_safe_softmax, ops::glu>();
  all_along_dim<ops::_softmax_backward_data, ops::_log_softmax_backward_data, ops::glu_backward,
                ops::glu_jvp, ops::glu_backward_jvp>();
}

}  // namespace functx
