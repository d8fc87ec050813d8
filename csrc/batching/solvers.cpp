// Systems of linear equations. If all examples have the same matrix, their right-hand sides become
// columns of one system.
#include "batching/dims.h"
#include "batching/rule.h"

namespace functx {
namespace {

void check_matrix(const char* name, const Batched& x) {
  TORCH_CHECK(x.logical_dim() >= 2, name,
              ": The input tensor must have at least 2 dimensions, but "
              "it has ",
              x.logical_dim());
}

// Both batched and with stacks of equal rank, so that they broadcast as the examples do.
struct Stacks {
  Stacks(const Batched& matrix, const Batched& sides) {
    const int64_t rank = std::max(matrix.logical_dim(), sides.logical_dim());
    a = align_rank(matrix, rank);
    b = align_rank(sides, rank);
  }
  Tensor a;
  Tensor b;
};

// Right-hand sides of many examples as columns (rows, if the matrix stands on the right).
class Columns {
 public:
  Columns(const Batched& sides, const Batched& matrix, bool left)
      : dim_(std::max(sides.logical_dim(), matrix.logical_dim()) - (left ? 1 : 2)),
        size_(batch_size(sides)),
        value(fold_batch_into(
            align_rank(sides, std::max(sides.logical_dim(), matrix.logical_dim())), dim_)) {}

  Batched split(const Tensor& solution) const {
    return {unfold_batch_from(solution, dim_, size_), true};
  }

 private:
  int64_t dim_;
  int64_t size_;

 public:
  Tensor value;
};

Batched solve_triangular(const Batched& a, const Batched& b, bool upper, bool left,
                         bool unitriangular) {
  const auto solve = [&](const Tensor& matrix, const Tensor& sides) {
    return ops::linalg_solve_triangular::call(matrix, sides, upper, left, unitriangular);
  };
  check_matrix("linalg.solve_triangular", a);
  check_matrix("linalg.solve_triangular", b);
  if (b.is_batched && !a.is_batched) {
    const Columns columns(b, a, left);
    return columns.split(solve(a.value, columns.value));
  }
  const Stacks x(a, b);
  return {solve(x.a, x.b), a.is_batched || b.is_batched};
}

Batched cholesky_solve(const Batched& b, const Batched& a, bool upper) {
  check_matrix("cholesky_solve", a);
  check_matrix("cholesky_solve", b);
  if (b.is_batched && !a.is_batched) {
    const Columns columns(b, a, true);
    return columns.split(ops::cholesky_solve::call(columns.value, a.value, upper));
  }
  const Stacks x(a, b);
  return {ops::cholesky_solve::call(x.b, x.a, upper), a.is_batched || b.is_batched};
}

std::tuple<Batched, Batched> triangular_solve(const Batched& b, const Batched& a, bool upper,
                                              bool transpose, bool unitriangular) {
  check_matrix("triangular_solve", a);
  check_matrix("triangular_solve", b);
  const Stacks x(a, b);
  auto [solution, matrix] = ops::triangular_solve::call(x.b, x.a, upper, transpose, unitriangular);
  const bool batched = a.is_batched || b.is_batched;
  return {{std::move(solution), batched}, {std::move(matrix), batched}};
}

Batched lu_solve(const Batched& lu, const Batched& pivots, const Batched& b, bool left,
                 bool adjoint) {
  check_matrix("linalg.lu_solve", lu);
  check_matrix("linalg.lu_solve", b);
  const auto size = common_batch_size({&lu, &pivots});
  if (!size && b.is_batched) {
    const Columns columns(b, lu, left);
    return columns.split(
        ops::linalg_lu_solve::call(lu.value, pivots.value, columns.value, left, adjoint));
  }
  if (!size) {
    return {ops::linalg_lu_solve::call(lu.value, pivots.value, b.value, left, adjoint), false};
  }
  const Batched matrices{ensure_batched(lu, *size), true};
  const Stacks x(matrices, b);
  const Batched swaps{ensure_batched(pivots, *size), true};
  return {ops::linalg_lu_solve::call(x.a, align_rank(swaps, x.a.dim() - 2), x.b, left, adjoint),
          true};
}

// NumPy's rule: a vector, or a stack of vectors that fits the stack of matrices exactly.
bool is_vector_side(const Batched& a, const Batched& b) {
  const auto shape = [](const Batched& x) { return x.value.sizes().slice(x.is_batched ? 1 : 0); };
  return b.logical_dim() == 1 || (a.logical_dim() - 1 == b.logical_dim() &&
                                  shape(b).equals(shape(a).slice(0, a.logical_dim() - 1)));
}

std::tuple<Batched, Batched, Batched, Batched> solve(const Batched& a, const Batched& side,
                                                     bool left, bool check_errors) {
  check_matrix("linalg.solve", a);
  const auto call = [&](const Tensor& matrix, const Tensor& sides) {
    return ops::_linalg_solve_ex::call(matrix, sides, left, check_errors);
  };
  const bool is_vector = is_vector_side(a, side);
  const bool batched = a.is_batched || side.is_batched;
  if (!batched || (is_vector && !left)) {
    auto [x, lu, pivots, info] = call(a.value, side.value);
    return {{x, false}, {lu, false}, {pivots, false}, {info, false}};
  }
  const Batched b{is_vector ? side.value.unsqueeze(-1) : side.value, side.is_batched};
  const auto result = [&](Batched x) {
    return Batched{is_vector ? x.value.squeeze(-1) : x.value, x.is_batched};
  };
  if (!a.is_batched) {
    const Columns columns(b, a, left);
    auto [x, lu, pivots, info] = call(a.value, columns.value);
    return {result(columns.split(x)), {lu, false}, {pivots, false}, {info, false}};
  }
  const Stacks stacks(a, b);
  // What is neither must not look like a stack of vectors.
  auto [x, lu, pivots, info] =
      call(stacks.a, b.is_batched ? stacks.b : ensure_batched({stacks.b, false}, batch_size(a)));
  return {result({x, true}), {lu, true}, {pivots, true}, {info, true}};
}

std::tuple<Batched, Batched, Batched, Batched> lstsq(const Batched& a, const Batched& side,
                                                     std::optional<double> rcond,
                                                     std::optional<c10::string_view> driver) {
  check_matrix("linalg.lstsq", a);
  const auto size = common_batch_size({&a, &side});
  if (!size) {
    auto [x, residuals, rank, values] = ops::linalg_lstsq::call(a.value, side.value, rcond, driver);
    return {{x, false}, {residuals, false}, {rank, false}, {values, false}};
  }
  const bool is_vector = is_vector_side(a, side);
  const Batched b{is_vector ? side.value.unsqueeze(-1) : side.value, side.is_batched};
  const Stacks stacks({ensure_batched(a, *size), true}, {ensure_batched(b, *size), true});
  auto [x, residuals, rank, values] = ops::linalg_lstsq::call(stacks.a, stacks.b, rcond, driver);
  // Whatever the driver doesn't compute is empty and has no batch dimension.
  const auto with_batch = [&](const Tensor& part) {
    return Batched{part.dim() == 1 && part.numel() == 0 ? part.new_empty({*size, 0}) : part, true};
  };
  return {{is_vector ? x.squeeze(-1) : x, true},
          with_batch(residuals),
          with_batch(rank),
          with_batch(values)};
}

}  // namespace

FUNCTX_RULES(solvers) {
  batching_rule<ops::linalg_solve_triangular, solve_triangular>();
  batching_rule<ops::cholesky_solve, cholesky_solve>();
  batching_rule<ops::triangular_solve, triangular_solve>();
  batching_rule<ops::linalg_lu_solve, lu_solve>();
  batching_rule<ops::_linalg_solve_ex, solve>();
  batching_rule<ops::linalg_lstsq, lstsq>();
}

}  // namespace functx
