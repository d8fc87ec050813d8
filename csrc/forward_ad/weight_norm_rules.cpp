// Weight normalization, w = g * v / |v|, with the norms of v along all dims but one.
#include "forward_ad/conform.h"
#include "forward_ad/rule.h"
#include "reverse_ad/differentiated.h"
#include "reverse_ad/recordable.h"

namespace functx {
namespace {

// Summed over all dims but `dim`.
Tensor sum_of_rows(const Tensor& x, int64_t dim) {
  std::vector<int64_t> dims;
  const int64_t kept = dim < 0 ? dim + x.dim() : dim;
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (d != kept) {
      dims.push_back(d);
    }
  }
  return dims.empty() ? x : x.sum(dims, /*keepdim=*/true);
}

// The operator saves its norms for the backward, which takes them for constants.
Tensor differentiable_norms(const Tensor& v, const Tensor& norms, int64_t dim) {
  return is_differentiated(v) ? sum_of_rows(v.square(), dim).sqrt().to(norms.scalar_type()) : norms;
}

std::tuple<Dual, Dual> weight_norm(const Dual& v, const Dual& g, int64_t dim) {
  auto [weight, norms] = ops::_weight_norm_interface::call(v.primal, g.primal, dim);
  const Tensor lengths = differentiable_norms(v.primal, norms, dim);
  Tensor tangent, norm_tangent;
  if (v.has_tangent()) {
    norm_tangent = sum_of_rows(v.primal.mul(v.tangent), dim).div(lengths);
    tangent = v.tangent.sub(v.primal.mul(norm_tangent.div(lengths))).mul(g.primal.div(lengths));
  }
  if (g.has_tangent()) {
    tangent = sum_of(std::move(tangent), v.primal.mul(g.tangent.div(lengths)));
  }
  return {conform(std::move(tangent), std::move(weight)),
          conform(std::move(norm_tangent), std::move(norms))};
}

std::tuple<Tensor, Tensor> weight_norm_gradient(const Tensor& grad, const Tensor& v,
                                                const Tensor& g, const Tensor& norms, int64_t dim) {
  const Tensor lengths = differentiable_norms(v, norms, dim);
  const Tensor along = sum_of_rows(grad.mul(v), dim).div(lengths);
  Tensor by_v = grad.sub(v.mul(along.div(lengths))).mul(g.div(lengths));
  return {by_v.to(v.scalar_type()), along.to(g.scalar_type())};
}

std::tuple<Tensor, Tensor> weight_norm_backward(const LevelPtr& level, const Tensor& grad,
                                                const Tensor& v, const Tensor& g,
                                                const Tensor& norms, int64_t dim) {
  return weight_norm_gradient(untaped(level, grad), untaped(level, v), untaped(level, g),
                              untaped(level, norms), dim);
}

// Also where no tape of this stratum records: one of a stratum below may.
std::optional<std::tuple<Tensor, Tensor>> differentiable_gradient(const LevelPtr&, bool,
                                                                  const Tensor& grad,
                                                                  const Tensor& v, const Tensor& g,
                                                                  const Tensor& norms,
                                                                  int64_t dim) {
  return weight_norm_gradient(grad, v, g, norms, dim);
}

}  // namespace

FUNCTX_RULES(jvp_weight_norm) {
  dual_rule<ops::_weight_norm_interface, weight_norm>();
  Rules<ops::_weight_norm_interface_backward>::dual = &weight_norm_backward;
  install_kernel<ops::_weight_norm_interface_backward>();
}

// What PyTorch calls for a backward that is recorded.
FUNCTX_RULES(gradients_of_weight_norm) {
  rewritten<ops::_weight_norm_differentiable_backward, differentiable_gradient>();
  recordable_on_plain_tensors<ops::_weight_norm_differentiable_backward, weight_norm_gradient>();
}

}  // namespace functx
