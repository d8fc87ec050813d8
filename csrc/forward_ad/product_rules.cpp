// Products of matrices and vectors, and convolutions: the product rule, with the sum done by the
// operators that can add to what is there.
#include "forward_ad/families.h"

namespace functx {
namespace {

Tensor times(const Tensor& tensor, const at::Scalar& factor) {
  return factor.equal(1) ? tensor : tensor.mul(factor);
}

// left @ right by `Product`, and what there is already plus left @ right by `AddProduct`.
template <class Product, class AddProduct>
Dual product(const Dual& left, const Dual& right) {
  Tensor tangent;
  if (left.has_tangent()) {
    tangent = Product::call(left.tangent, right.primal);
  }
  if (right.has_tangent()) {
    tangent = tangent.defined() ? AddProduct::call(tangent, left.primal, right.tangent, 1, 1)
                                : Product::call(left.primal, right.tangent);
  }
  return {Product::call(left.primal, right.primal), std::move(tangent)};
}

// addcmul saves a pass over memory, but it takes neither numbers from another device nor sparse
// tensors.
Dual mul(const Dual& left, const Dual& right) {
  Tensor tangent;
  if (left.has_tangent()) {
    tangent = left.tangent.mul(right.primal);
  }
  if (right.has_tangent()) {
    const Tensor &factor = left.primal, &moved = right.tangent;
    const bool adds = tangent.defined() && factor.device() == moved.device() &&
                      factor.scalar_type() == moved.scalar_type() &&
                      factor.layout() == at::kStrided;
    tangent = adds ? tangent.addcmul(factor, moved) : sum_of(std::move(tangent), factor.mul(moved));
  }
  return conform(std::move(tangent), ops::mul_Tensor::call(left.primal, right.primal));
}

// beta * self + alpha * left @ right; self may broadcast.
template <class AddProduct, auto multiply>
Dual add_product(const Dual& self, const Dual& left, const Dual& right, const at::Scalar& beta,
                 const at::Scalar& alpha) {
  Tensor primal = AddProduct::call(self.primal, left.primal, right.primal, beta, alpha);
  Tensor tangent = self.tangent;
  at::Scalar keep = beta;
  const auto add_term = [&](const Tensor& a, const Tensor& b) {
    if (a.defined() && b.defined()) {
      tangent = tangent.defined() ? AddProduct::call(tangent, a, b, keep, alpha)
                                  : times(multiply(a, b), alpha);
      keep = 1;
    }
  };
  add_term(left.tangent, right.primal);
  add_term(left.primal, right.tangent);
  if (!left.has_tangent() && !right.has_tangent()) {
    tangent = times(tangent, beta);
  }
  return conform(std::move(tangent), std::move(primal));
}

Tensor sum_of_products(const Tensor& a, const Tensor& b) {
  return ops::bmm::call(a, b).sum(at::IntArrayRef{0});
}

Dual linalg_inv(const Tensor& tangent, Tensor inverse) {
  Tensor change = inverse.matmul(tangent).matmul(inverse).neg();
  return {std::move(inverse), std::move(change)};
}

std::tuple<Dual, Tensor> linalg_inv_ex(const Dual& a, bool check_errors) {
  auto [inverse, info] = ops::linalg_inv_ex::call(a.primal, check_errors);
  return {linalg_inv(a.tangent, std::move(inverse)), std::move(info)};
}

// ---- convolutions ----

Dual convolution(const Dual& input, const Dual& weight, const Dual& bias,
                 c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                 c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding,
                 const c10::SymInt& groups) {
  const auto convolve = [&](const Tensor& x, const Tensor& w, const Tensor& b) {
    return ops::convolution::call(x, w, b.defined() ? std::make_optional(b) : std::nullopt, stride,
                                  padding, dilation, transposed, output_padding, groups);
  };
  Tensor primal = convolve(input.primal, weight.primal, bias.primal);
  Tensor tangent;
  if (input.has_tangent()) {
    tangent = convolve(input.tangent, weight.primal, bias.tangent);
  }
  if (weight.has_tangent()) {
    const Tensor rest = input.has_tangent() ? Tensor() : bias.tangent;
    tangent = sum_of(std::move(tangent), convolve(input.primal, weight.tangent, rest));
  }
  if (!input.has_tangent() && !weight.has_tangent()) {
    std::vector<c10::SymInt> per_channel(primal.dim(), 1);
    per_channel[primal.dim() - weight.primal.dim() + 1] = bias.tangent.sym_size(0);
    tangent = bias.tangent.reshape_symint(per_channel);
  }
  return conform(std::move(tangent), std::move(primal));
}

std::tuple<Dual, Dual, Dual> convolution_backward(
    const Dual& grad, const Dual& input, const Dual& weight, at::OptionalSymIntArrayRef bias_sizes,
    c10::SymIntArrayRef stride, c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation,
    bool transposed, c10::SymIntArrayRef output_padding, const c10::SymInt& groups,
    std::array<bool, 3> mask) {
  const auto backward = [&](const Tensor& g, const Tensor& x, const Tensor& w,
                            std::array<bool, 3> wanted) {
    return ops::convolution_backward::call(g, x, w, bias_sizes, stride, padding, dilation,
                                           transposed, output_padding, groups, wanted);
  };
  auto [by_input, by_weight, by_bias] = backward(grad.primal, input.primal, weight.primal, mask);
  Tensor input_tangent, weight_tangent, bias_tangent;
  if (grad.has_tangent()) {
    std::tie(input_tangent, weight_tangent, bias_tangent) =
        backward(grad.tangent, input.primal, weight.primal, mask);
  }
  if (weight.has_tangent() && mask[0]) {
    input_tangent = sum_of(
        std::move(input_tangent),
        std::get<0>(backward(grad.primal, input.primal, weight.tangent, {true, false, false})));
  }
  if (input.has_tangent() && mask[1]) {
    weight_tangent = sum_of(
        std::move(weight_tangent),
        std::get<1>(backward(grad.primal, input.tangent, weight.primal, {false, true, false})));
  }
  return {Dual{std::move(by_input), std::move(input_tangent)},
          Dual{std::move(by_weight), std::move(weight_tangent)},
          Dual{std::move(by_bias), std::move(bias_tangent)}};
}

}  // namespace

FUNCTX_RULES(jvp_products) {
  dual_rule<ops::mul_Tensor, mul>();
  multilinear<ops::dot, ops::vdot, ops::linalg_cross, ops::_trilinear>();
  dual_rule<ops::mm, product<ops::mm, ops::addmm>>();
  dual_rule<ops::mv, product<ops::mv, ops::addmv>>();
  dual_rule<ops::bmm, product<ops::bmm, ops::baddbmm>>();
  dual_rule<ops::addmm, add_product<ops::addmm, &ops::mm::call>>();
  dual_rule<ops::addmv, add_product<ops::addmv, &ops::mv::call>>();
  dual_rule<ops::baddbmm, add_product<ops::baddbmm, &ops::bmm::call>>();
  dual_rule<ops::addbmm, add_product<ops::addbmm, sum_of_products>>();
  dual_rule<ops::addr, add_product<ops::addr, &ops::outer::call>>();
  dual_rule<ops::linalg_inv_ex, linalg_inv_ex>();
}

FUNCTX_RULES(jvp_convolution) {
  dual_rule<ops::convolution, convolution>();
  dual_rule<ops::convolution_backward, convolution_backward>();
}

}  // namespace functx
