// Products of matrices and vectors. One large product beats many small ones: where one side is the
// same for every example, the batch joins a dimension of the other side.
#include <ATen/OpMathType.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>

#include "batching/dims.h"
#include "batching/rule.h"

namespace functx {
namespace {

void check_ranks(const char* name, const Batched& a, int64_t rank_a, const Batched& b,
                 int64_t rank_b) {
  TORCH_CHECK(a.logical_dim() == rank_a && b.logical_dim() == rank_b, name,
              ": Shape mismatch: expected ", rank_a, "-D and ", rank_b, "-D tensors, but got ",
              a.logical_dim(), "-D and ", b.logical_dim(), "-D ones");
}

bool is_sparse(const Batched& x) { return x.value.layout() == at::kSparse; }

// One of the two is sparse, and the product is dense.
Batched sparse_mm(const Batched& a, const Batched& b) {
  const auto size = common_batch_size({&a, &b});
  TORCH_CHECK_NOT_IMPLEMENTED(!is_sparse(a) || !is_sparse(b),
                              "functx.vmap: mm of two sparse matrices, of which one or both differ "
                              "between examples. Call to_dense() on one of them.");
  if (is_sparse(b)) {
    const Batched product = sparse_mm({b.value.transpose(-2, -1), b.is_batched},
                                      {a.value.transpose(-2, -1), a.is_batched});
    return {product.value.transpose(-2, -1), true};
  }
  if (!a.is_batched) {
    return {unfold_batch_from(ops::mm::call(a.value, fold_batch_into(b.value, 1)), 1, *size), true};
  }
  return {ops::bmm::call(a.value, ensure_batched(b, *size)), true};
}

Batched mm(const Batched& a, const Batched& b) {
  check_ranks("mm", a, 2, b, 2);
  if ((is_sparse(a) || is_sparse(b)) && (a.is_batched || b.is_batched)) {
    return sparse_mm(a, b);
  }
  if (a.is_batched == b.is_batched) {
    return {a.is_batched ? ops::bmm::call(a.value, b.value) : ops::mm::call(a.value, b.value),
            a.is_batched};
  }
  // [B, n, k] @ [k, m]: matmul folds the batch into the rows. [n, k] @ [B, k, m]: one product for
  // each example, for folded into the columns their results would not be contiguous.
  return {at::matmul(a.value, b.value), true};
}

Batched mv(const Batched& a, const Batched& x) {
  check_ranks("mv", a, 2, x, 1);
  if (is_sparse(a) && (a.is_batched || x.is_batched)) {
    const Batched product = sparse_mm(a, {x.value.unsqueeze(-1), x.is_batched});
    return {product.value.squeeze(-1), true};
  }
  if (!a.is_batched) {
    return x.is_batched ? Batched{ops::mm::call(x.value, a.value.t()), true}
                        : Batched{ops::mv::call(a.value, x.value), false};
  }
  if (!x.is_batched) {
    return {at::matmul(a.value, x.value), true};
  }
  // BLAS multiplies a row by a matrix several times faster than a matrix by a column, unless it
  // gets a copy of the matrix anyway.
  const bool is_dense = a.value.stride(1) == 1 || a.value.stride(2) == 1;
  return {is_dense ? ops::bmm::call(x.value.unsqueeze(1), a.value.transpose(1, 2)).squeeze(1)
                   : ops::bmm::call(a.value, x.value.unsqueeze(2)).squeeze(2),
          true};
}

// One by one in `bmm`, which is far slower, but does not round the products.
Tensor dot_each(const Tensor& x, const Tensor& y) {
  const bool is_simple = x.scalar_type() == y.scalar_type() && x.sym_size(1) == y.sym_size(1);
  if (!is_simple || at::isReducedFloatingType(x.scalar_type())) {
    return ops::bmm::call(x.unsqueeze(1), y.unsqueeze(2)).flatten();
  }
  const auto sum_of_products = [](const Tensor& a, const Tensor& b) {
    return a.mul(b).sum(1, false, a.scalar_type());
  };
  constexpr int64_t kCached = 1 << 20;
  if (!x.is_cpu() || x.numel() <= kCached) {
    return sum_of_products(x, y);
  }
  // As many rows at once as have their products in the cache.
  const int64_t rows = std::max<int64_t>(1, kCached / x.size(1));
  const std::vector<Tensor> xs = x.split(rows), ys = y.split(rows);
  std::vector<Tensor> parts(xs.size());
  std::transform(xs.begin(), xs.end(), ys.begin(), parts.begin(), sum_of_products);
  return at::cat(parts);
}

Batched dot(const Batched& x, const Batched& y) {
  check_ranks("dot", x, 1, y, 1);
  if (x.is_batched && y.is_batched) {
    return {dot_each(x.value, y.value), true};
  }
  return {x.is_batched ? ops::mv::call(x.value, y.value) : at::matmul(y.value, x.value),
          x.is_batched || y.is_batched};
}

Batched vdot(const Batched& x, const Batched& y) {
  return dot({x.value.is_complex() ? x.value.conj() : x.value, x.is_batched}, y);
}

// Sparse dimensions can't be folded, nor is there a product of more than three.
Batched sparse_bmm(const Batched& a, const Batched& b) {
  const int64_t size = batch_size(a.is_batched ? a : b);
  const auto example = [](const Batched& x, int64_t i) {
    return x.is_batched ? x.value.select(0, i) : x.value;
  };
  std::vector<Tensor> products(size);
  for (int64_t i = 0; i < size; ++i) {
    products[i] = ops::bmm::call(example(a, i), example(b, i));
  }
  return {at::stack(products), true};
}

Batched bmm(const Batched& a, const Batched& b) {
  check_ranks("bmm", a, 3, b, 3);
  if ((is_sparse(a) || is_sparse(b)) && (a.is_batched || b.is_batched)) {
    return sparse_bmm(a, b);
  }
  if (!a.is_batched && !b.is_batched) {
    return {ops::bmm::call(a.value, b.value), false};
  }
  if (a.is_batched && b.is_batched) {
    return {at::matmul(a.value, b.value), true};
  }
  const Batched& batched = a.is_batched ? a : b;
  const Batched& shared = a.is_batched ? b : a;
  if (shared.value.numel() * batch_size(batched) <= batched.value.numel()) {
    // To spread the smaller side over the examples is cheaper than to fold the larger.
    return {at::matmul(a.value, b.value), true};
  }
  // One side [B, n, i, k], the other [n, k, j]: the batch joins i, so that each of the n matrices
  // that are the same for every example is read once.
  const Tensor rows = a.is_batched ? a.value : b.value.transpose(2, 3);
  const Tensor fixed = a.is_batched ? b.value : a.value.transpose(1, 2);
  const Tensor folded = rows.transpose(0, 1).flatten(1, 2);
  const Tensor product = ops::bmm::call(folded, fixed)
                             .unflatten(1, {batch_size(batched), rows.size(2)})
                             .transpose(0, 1);
  // Each example as its own product would lie in memory: somebody may view it.
  return {(a.is_batched ? product : product.transpose(2, 3)).contiguous(), true};
}

// beta * self + alpha * product, where `self` broadcasts to `rank` logical dimensions.
Batched add_product(const Batched& self, Batched product, int64_t rank, const at::Scalar& beta,
                    const at::Scalar& alpha) {
  const auto dtype = product.value.scalar_type();
  if (!alpha.equal(1)) {
    // In half precision, rounded once more only when the sum is.
    product.value = product.value.to(at::toOpMathType(dtype)).mul(alpha);
  }
  if (beta.equal(0)) {
    return {product.value.to(dtype), product.is_batched};
  }
  // Contiguous, so that the sum has the layout of the product: somebody may view an example of it.
  const Tensor term = align_rank(self, rank).contiguous().to(product.value.scalar_type());
  return {ops::add_Tensor::call(product.value, term, beta).to(dtype),
          self.is_batched || product.is_batched};
}

Batched addmm(const Batched& self, const Batched& a, const Batched& b, const at::Scalar& beta,
              const at::Scalar& alpha) {
  if ((is_sparse(a) || is_sparse(b)) && (a.is_batched || b.is_batched)) {
    return add_product(self, sparse_mm(a, b), 2, beta, alpha);
  }
  if (a.is_batched && !b.is_batched && !self.is_batched && self.value.dim() == 1) {
    // A linear layer with shared weight and bias: one fused product over all rows of the batch.
    const Tensor rows = a.value.flatten(0, 1);
    const Tensor result = ops::addmm::call(self.value, rows, b.value, beta, alpha);
    return {result.unflatten(0, {batch_size(a), a.value.size(1)}), true};
  }
  // In half precision a product that is added later would be rounded in between.
  const bool must_fuse = at::isReducedFloatingType(a.value.scalar_type());
  if ((a.is_batched && b.is_batched) || (must_fuse && (a.is_batched || b.is_batched))) {
    check_ranks("addmm", a, 2, b, 2);
    const int64_t size = batch_size(a.is_batched ? a : b);
    return {ops::baddbmm::call(align_rank(self, 2), ensure_batched(a, size),
                               ensure_batched(b, size), beta, alpha),
            true};
  }
  return add_product(self, mm(a, b), 2, beta, alpha);
}

// PyTorch's addmv, addbmm and baddbmm take fractions for integers too, and round them towards zero.
at::Scalar as_factor(const at::Scalar& factor, const Batched& of) {
  return at::isIntegralType(of.value.scalar_type(), /*includeBool=*/true)
             ? at::Scalar(factor.to<int64_t>())
             : factor;
}

Batched addmv(const Batched& self, const Batched& a, const Batched& x, const at::Scalar& beta,
              const at::Scalar& alpha) {
  return add_product(self, mv(a, x), 1, as_factor(beta, self), as_factor(alpha, self));
}

Batched baddbmm(const Batched& self, const Batched& a, const Batched& b, const at::Scalar& beta,
                const at::Scalar& alpha) {
  return add_product(self, bmm(a, b), 3, as_factor(beta, self), as_factor(alpha, self));
}

// The sum over pairs of matrices is one product of them side by side and on top of each other, and
// so is rounded once.
Batched addbmm(const Batched& self, const Batched& a, const Batched& b, const at::Scalar& beta,
               const at::Scalar& alpha) {
  check_ranks("addbmm", a, 3, b, 3);
  TORCH_CHECK(
      a.value.sym_size(-3) == b.value.sym_size(-3) && a.value.sym_size(-1) == b.value.sym_size(-2),
      "functx.vmap: addbmm got matrices that don't fit: ", a.value.sym_sizes(), " and ",
      b.value.sym_sizes());
  const Batched wide{a.value.transpose(-3, -2).flatten(-2), a.is_batched};
  const Batched tall{b.value.flatten(-3, -2), b.is_batched};
  return addmm(self, wide, tall, as_factor(beta, self), as_factor(alpha, self));
}

// Sums over the dims in `sum_dim` of the product of three tensors, each of which is first given
// dimensions of size one at its `expand` positions.
Tensor trilinear(const Tensor& a, const Tensor& b, const Tensor& c, at::IntArrayRef expand_a,
                 at::IntArrayRef expand_b, at::IntArrayRef expand_c, at::IntArrayRef sum_dim,
                 int64_t) {
  const auto expanded = [](Tensor x, at::IntArrayRef dims) {
    for (const int64_t dim : dims) {
      x = x.unsqueeze(dim);
    }
    return x;
  };
  const Tensor product = expanded(a, expand_a).mul(expanded(b, expand_b));
  const Tensor terms = product.mul(expanded(c, expand_c));
  return terms.sum(sum_dim, false, terms.scalar_type());
}

}  // namespace

FUNCTX_RULES(matmul) {
  batching_decomposition<ops::_trilinear, trilinear>();
  batching_rule<ops::mm, mm>();
  batching_rule<ops::mv, mv>();
  batching_rule<ops::dot, dot>();
  batching_rule<ops::vdot, vdot>();
  batching_rule<ops::bmm, bmm>();
  batching_rule<ops::addmm, addmm>();
  batching_rule<ops::addmv, addmv>();
  batching_rule<ops::baddbmm, baddbmm>();
  batching_rule<ops::addbmm, addbmm>();
}

}  // namespace functx
