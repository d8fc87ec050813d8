// Reductions that are not linear.
#include <ATen/WrapDimUtils.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>

#include <cmath>

#include "forward_ad/families.h"
#include "reverse_ad/recordable.h"
#include "reverse_ad/values.h"

namespace functx {
namespace {

// ---- dims ----

// No dims at all, as none given, means all of them.
std::vector<int64_t> reduced_dims(const Tensor& self, at::OptionalIntArrayRef dim) {
  std::vector<int64_t> dims;
  if (dim.has_value() && !dim->empty()) {
    for (const int64_t d : *dim) {
      dims.push_back(at::maybe_wrap_dim(d, self.dim()));
    }
    std::sort(dims.begin(), dims.end());
    return dims;
  }
  for (int64_t d = 0; d < self.dim(); ++d) {
    dims.push_back(d);
  }
  return dims;
}

// The result of a reduction of `self`, with the reduced dims kept as ones.
Tensor keep_dims(Tensor result, const Tensor& self, const std::vector<int64_t>& dims,
                 bool has_them) {
  if (!has_them && self.dim() > 0) {
    for (const int64_t d : dims) {
      result = result.unsqueeze(d);
    }
  }
  return result;
}

Tensor sum_dims(const Tensor& terms, const std::vector<int64_t>& dims, bool keepdim) {
  return terms.sum(dims, keepdim);
}

// ---- moments ----

double count(const Tensor& self, const std::vector<int64_t>& dims) {
  double n = 1;
  for (const int64_t d : dims) {
    n *= static_cast<double>(self.sym_size(d).guard_int(__FILE__, __LINE__));
  }
  return n;
}

Tensor var_tangent(const Dual& self, at::OptionalIntArrayRef dim,
                   const std::optional<at::Scalar>& correction, bool keepdim) {
  const auto dims = reduced_dims(self.primal, dim);
  const double degrees =
      count(self.primal, dims) - (correction.has_value() ? correction->toDouble() : 1.0);
  const Tensor centered = self.primal.sub(self.primal.mean(dims, true));
  return sum_dims(real_inner(centered, self.tangent), dims, keepdim)
      .mul(self.primal.sym_numel() == 0 ? 0.0 : 2 / std::max(degrees, 0.0));
}

Tensor std_tangent(const Tensor& std, const Tensor& var_tangent) {
  return quotient_or_zero(var_tangent, std.mul(2));
}

Dual var(const Dual& self, at::OptionalIntArrayRef dim, const std::optional<at::Scalar>& correction,
         bool keepdim) {
  return {ops::var_correction::call(self.primal, dim, correction, keepdim),
          var_tangent(self, dim, correction, keepdim)};
}

Dual std_(const Dual& self, at::OptionalIntArrayRef dim,
          const std::optional<at::Scalar>& correction, bool keepdim) {
  Tensor primal = ops::std_correction::call(self.primal, dim, correction, keepdim);
  Tensor tangent = std_tangent(primal, var_tangent(self, dim, correction, keepdim));
  return {std::move(primal), std::move(tangent)};
}

std::tuple<Dual, Dual> var_mean(const Dual& self, at::OptionalIntArrayRef dim,
                                const std::optional<at::Scalar>& correction, bool keepdim) {
  auto [var, mean] = ops::var_mean_correction::call(self.primal, dim, correction, keepdim);
  return {Dual{std::move(var), var_tangent(self, dim, correction, keepdim)},
          Dual{std::move(mean), self.tangent.mean(reduced_dims(self.primal, dim), keepdim)}};
}

std::tuple<Dual, Dual> std_mean(const Dual& self, at::OptionalIntArrayRef dim,
                                const std::optional<at::Scalar>& correction, bool keepdim) {
  auto [std, mean] = ops::std_mean_correction::call(self.primal, dim, correction, keepdim);
  Tensor tangent = std_tangent(std, var_tangent(self, dim, correction, keepdim));
  return {Dual{std::move(std), std::move(tangent)},
          Dual{std::move(mean), self.tangent.mean(reduced_dims(self.primal, dim), keepdim)}};
}

// ---- norms ----

Dual logsumexp(const Dual& self, at::IntArrayRef dim, bool keepdim) {
  Tensor primal = ops::logsumexp::call(self.primal, dim, keepdim);
  const auto dims = reduced_dims(self.primal, dim);
  const Tensor shares = self.primal.sub(keep_dims(primal, self.primal, dims, keepdim)).exp();
  return {std::move(primal), sum_dims(shares.mul(self.tangent), dims, keepdim)};
}

// Divided evenly among the entries that tie.
Tensor evenly(const Tensor& tangent, const Tensor& ties, const std::vector<int64_t>& dims,
              bool keepdim) {
  const Tensor total = sum_dims(zero_unless(ties, tangent), dims, keepdim);
  return total.div(ties.sum(dims, keepdim));
}

// Powers that are polynomials: these have derivatives of every order at zero.
bool is_even(double p) { return std::fmod(p, 2) == 0; }

Tensor norm_tangent(const Tensor& x, const Tensor& t, const Tensor& norm, double p,
                    const std::vector<int64_t>& dims, bool keepdim) {
  if (p == 0) {
    return {};
  }
  if (p == 1) {
    return sum_dims(real_inner(x.sgn(), t), dims, keepdim);
  }
  const Tensor is_zero = norm.eq(0);
  if (p == 2) {
    return sum_dims(real_inner(x, t), dims, keepdim).div(norm).masked_fill(is_zero, 0);
  }
  const Tensor wide_norm = keep_dims(norm, x, dims, keepdim);
  if (std::isinf(p)) {
    return evenly(real_inner(x.sgn(), t), x.abs().eq(wide_norm), dims, keepdim);
  }
  const Tensor divisor = wide_norm.masked_fill(wide_norm.eq(0), 1);
  if (is_even(p) && !x.is_complex()) {
    return sum_dims(t.mul(x.div(divisor).pow(p - 1)), dims, keepdim).masked_fill(is_zero, 0);
  }
  const Tensor slope = x.abs().div(divisor).pow(p - 1).masked_fill(x.eq(0), 0);
  return sum_dims(real_inner(x.sgn(), t).mul(slope), dims, keepdim).masked_fill(is_zero, 0);
}

Dual with_norm_tangent(Tensor primal, const Dual& self, double p, at::OptionalIntArrayRef dim,
                       bool keepdim, std::optional<at::ScalarType> dtype) {
  Tensor x = self.primal, t = self.tangent;
  if (dtype.has_value()) {
    x = x.to(*dtype);
    t = t.to(*dtype);
  }
  Tensor tangent = norm_tangent(x, t, primal, p, reduced_dims(x, dim), keepdim);
  return conform(std::move(tangent), std::move(primal));
}

Dual vector_norm(const Dual& self, const at::Scalar& ord, at::OptionalIntArrayRef dim, bool keepdim,
                 std::optional<at::ScalarType> dtype) {
  return with_norm_tangent(ops::linalg_vector_norm::call(self.primal, ord, dim, keepdim, dtype),
                           self, ord.toDouble(), dim, keepdim, dtype);
}

// The operator that torch.norm was before. PyTorch's formula gives the norm of all entries a
// tangent of another shape than it has.
Dual norm_of_all(const Dual& self, const at::Scalar& p) {
  return with_norm_tangent(ops::norm_Scalar::call(self.primal, p), self, p.toDouble(), std::nullopt,
                           false, std::nullopt);
}

using Exponent = std::optional<at::Scalar>;

double or_two(const Exponent& p) { return p.has_value() ? p->toDouble() : 2; }

Dual norm_of_all_in(const Dual& self, const Exponent& p, at::ScalarType dtype) {
  return with_norm_tangent(ops::norm_ScalarOpt_dtype::call(self.primal, p, dtype), self, or_two(p),
                           std::nullopt, false, dtype);
}

Dual norm(const Dual& self, const Exponent& p, at::IntArrayRef dim, bool keepdim) {
  return with_norm_tangent(ops::norm_ScalarOpt_dim::call(self.primal, p, dim, keepdim), self,
                           or_two(p), dim, keepdim, std::nullopt);
}

Dual norm_in(const Dual& self, const Exponent& p, at::IntArrayRef dim, bool keepdim,
             at::ScalarType dtype) {
  return with_norm_tangent(ops::norm_ScalarOpt_dim_dtype::call(self.primal, p, dim, keepdim, dtype),
                           self, or_two(p), dim, keepdim, dtype);
}

// Slices that are longer than the maximum are made as long as that.
Dual renorm(const Dual& self, const at::Scalar& p, int64_t dim, const at::Scalar& maximum) {
  constexpr double eps = 1e-7;
  const Tensor &x = self.primal, &t = self.tangent;
  std::vector<int64_t> dims = reduced_dims(x, std::nullopt);
  dims.erase(dims.begin() + at::maybe_wrap_dim(dim, x.dim()));
  const Tensor length = ops::linalg_vector_norm::call(x, p, dims, true, std::nullopt);
  const Tensor growth = norm_tangent(x, t, length, p.toDouble(), dims, true);
  const Tensor factor = length.add(eps).reciprocal().mul(maximum);
  Tensor tangent = t.mul(factor);
  if (growth.defined()) {
    tangent = tangent.sub(x.mul(growth.mul(factor).div(length.add(eps))));
  }
  return {ops::renorm::call(x, p, dim, maximum), at::where(length.gt(maximum), tangent, t)};
}

// ---- extrema over all entries, or over several dims ----

template <class Op>
Dual extremum_of_all(const Dual& self) {
  Tensor primal = Op::call(self.primal);
  const Tensor ties =
      self.primal.eq(primal).logical_or(self.primal.isnan().logical_and(primal.isnan()));
  Tensor tangent = zero_unless(ties, self.tangent).sum().div(ties.sum());
  return {std::move(primal), std::move(tangent)};
}

template <class Op>
Dual extremum_over_dims(const Dual& self, at::IntArrayRef dim, bool keepdim) {
  Tensor primal = Op::call(self.primal, dim, keepdim);
  const auto dims = reduced_dims(self.primal, dim);
  const Tensor ties = self.primal.eq(keep_dims(primal, self.primal, dims, keepdim));
  return {std::move(primal), evenly(self.tangent, ties, dims, keepdim)};
}

std::tuple<Dual, Dual> aminmax(const Dual& self, std::optional<int64_t> dim, bool keepdim) {
  auto [min, max] = ops::aminmax::call(self.primal, dim, keepdim);
  const auto dims = dim.has_value() ? reduced_dims(self.primal, at::IntArrayRef(*dim))
                                    : reduced_dims(self.primal, std::nullopt);
  const auto tangent = [&](const Tensor& result) {
    const Tensor ties = self.primal.eq(keep_dims(result, self.primal, dims, keepdim));
    return evenly(self.tangent, ties, dims, keepdim);
  };
  Tensor min_tangent = tangent(min), max_tangent = tangent(max);
  return {Dual{std::move(min), std::move(min_tangent)},
          Dual{std::move(max), std::move(max_tangent)}};
}

// By powers of the entries, as large as one by a factor that is constant.
Tensor norm_by_powers(const Tensor& x, double p, const std::vector<int64_t>& dims, bool keepdim) {
  const Tensor largest = ops::amax::call(constant(x).abs(), dims, /*keepdim=*/true);
  const Tensor size = largest.masked_fill(largest.eq(0), 1);
  const Tensor scaled = x.div(size);
  const Tensor terms = is_even(p) && !x.is_complex() ? scaled.pow(p) : scaled.abs().pow(p);
  const Tensor sum = terms.sum(dims, /*keepdim=*/true);
  const Tensor is_zero = sum.eq(0);
  const Tensor norm = sum.masked_fill(is_zero, 1).pow(1 / p).masked_fill(is_zero, 0).mul(size);
  return keepdim ? norm : norm.sum(dims);
}

// PyTorch's gradient has a gradient that is not a number if there is nothing, and one of some order
// that is not a number, or zero, at entries of zero.
std::optional<Tensor> recorded_norm(const Tensor& self, const at::Scalar& ord,
                                    at::OptionalIntArrayRef dim, bool keepdim,
                                    std::optional<at::ScalarType> dtype) {
  if (active_derivatives() < 2) {
    return std::nullopt;
  }
  if (self.sym_numel() == 0) {
    const Tensor norm = ops::linalg_vector_norm::call(self.detach(), ord, dim, keepdim, dtype);
    return norm.add(ops::sum::call(ops::abs::call(self), std::nullopt));
  }
  const double p = ord.toDouble();
  const Tensor plain = plain_value(self);
  if (p <= 2 || std::isinf(p) || !has_numbers(plain) || !any_zero(plain)) {
    return std::nullopt;
  }
  const Tensor x = dtype.has_value() ? self.to(*dtype) : self;
  return norm_by_powers(x, p, reduced_dims(x, dim), keepdim);
}

}  // namespace

FUNCTX_RULES(gradients_of_norms) { recordable<ops::linalg_vector_norm, recorded_norm>(); }

FUNCTX_RULES(jvp_reductions) {
  dual_rule<ops::var_correction, var>();
  dual_rule<ops::std_correction, std_>();
  dual_rule<ops::var_mean_correction, var_mean>();
  dual_rule<ops::std_mean_correction, std_mean>();
  dual_rule<ops::logsumexp, logsumexp>();
  dual_rule<ops::linalg_vector_norm, vector_norm>();
  dual_rule<ops::norm_Scalar, norm_of_all>();
  dual_rule<ops::norm_ScalarOpt_dtype, norm_of_all_in>();
  dual_rule<ops::norm_ScalarOpt_dim, norm>();
  dual_rule<ops::norm_ScalarOpt_dim_dtype, norm_in>();
  dual_rule<ops::renorm, renorm>();
  dual_rule<ops::max, extremum_of_all<ops::max>>();
  dual_rule<ops::min, extremum_of_all<ops::min>>();
  dual_rule<ops::median, extremum_of_all<ops::median>>();
  dual_rule<ops::nanmedian, extremum_of_all<ops::nanmedian>>();
  dual_rule<ops::amax, extremum_over_dims<ops::amax>>();
  dual_rule<ops::amin, extremum_over_dims<ops::amin>>();
  dual_rule<ops::aminmax, aminmax>();
}

}  // namespace functx
