// Linear algebra that PyTorch does on stacks of matrices: the batch is one more dimension of the
// stack. What it gains by a typed kernel is nothing next to what a factorisation costs.
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <unordered_map>

#include "batching/boxed_rules.h"
#include "batching/dims.h"
#include "batching/empty_batch.h"
#include "batching/rule.h"

namespace functx {
namespace {

// Dimensions of one item of a stack, for each tensor argument in order.
using CoreRanks = std::vector<int64_t>;

const std::unordered_map<std::string, CoreRanks>& core_ranks() {
  static const std::unordered_map<std::string, CoreRanks> table{
      {"aten::linalg_inv_ex", {2}},
      {"aten::_linalg_det", {2}},
      {"aten::_linalg_slogdet", {2}},
      {"aten::linalg_cholesky_ex", {2}},
      {"aten::cholesky", {2}},
      {"aten::cholesky_inverse", {2}},
      {"aten::linalg_qr", {2}},
      {"aten::geqrf", {2}},
      {"aten::_linalg_svd", {2}},
      {"aten::_linalg_eigh", {2}},
      {"aten::linalg_eig", {2}},
      {"aten::_linalg_eigvals", {2}},
      {"aten::linalg_lu", {2}},
      {"aten::linalg_lu_factor_ex", {2}},
      {"aten::linalg_ldl_factor_ex", {2}},
      {"aten::linalg_householder_product", {2, 1}},
      {"aten::ormqr", {2, 1, 2}},
      {"aten::lu_unpack", {2, 1}},
      {"aten::linalg_ldl_solve", {2, 1, 2}},
  };
  return table;
}

// A part of the result. One that was not asked for (the permutation, the vectors, `Q`) is empty,
// and has no dimension for the batch. If there are no examples, a number for each looks the same.
Batched part_of_result(const Tensor& value, bool any_batched, int64_t batch_size) {
  if (!any_batched || value.dim() != 1 || value.size(0) != 0) {
    return {value, any_batched};
  }
  check_any_examples(batch_size);
  return {value, false};
}

void on_stacks(const c10::OperatorHandle& op, const LevelPtr& level, torch::jit::Stack* stack) {
  const auto& name = op.operator_name().name;
  const CoreRanks& cores = core_ranks().at(name);
  const auto arguments = torch::jit::pop(*stack, op.schema().arguments().size());
  bool any_batched = false;
  int64_t stack_rank = 0;
  for (size_t i = 0; i < cores.size(); ++i) {
    const Batched x = unwrap_batched(level, arguments[i].toTensor());
    TORCH_CHECK(x.logical_dim() >= cores[i], name, ": The input tensor ", i, " must have at least ",
                cores[i], " dimensions, but it has ", x.logical_dim());
    any_batched = any_batched || x.is_batched;
    stack_rank = std::max(stack_rank, x.logical_dim() - cores[i]);
  }
  torch::jit::Stack values(arguments);
  for (size_t i = 0; i < cores.size(); ++i) {
    const Batched x = unwrap_batched(level, arguments[i].toTensor());
    // Not all of these broadcast, so that the batch is given to each.
    values[i] = any_batched ? align_rank({ensure_batched(x, level->batch_size), true},
                                         stack_rank + cores[i])
                            : x.value;
    // PyTorch's formulas tell by the layout of one example which matrix was factored: it or its
    // transpose. The kernels tell by the layout of the stack.
    if (arguments[i].toTensor().is_contiguous()) {
      values[i] = values[i].toTensor().contiguous();
    }
  }
  op.callBoxed(&values);
  for (const auto& value : values) {
    stack->emplace_back(
        make_batched(level, part_of_result(value.toTensor(), any_batched, level->batch_size)));
  }
}

// PyTorch's works on values that can be viewed as one stack only.
Batched matrix_exp(const Batched& self) {
  TORCH_CHECK(self.logical_dim() >= 2,
              "linalg.matrix_exp: The input tensor A must have at least 2 "
              "dimensions.");
  return {ops::linalg_matrix_exp::call(self.value.contiguous()), self.is_batched};
}

// The derivative stands in a corner of the exponential of a block matrix; PyTorch's decomposition
// writes the blocks into a tensor that all examples would share.
Tensor matrix_exp_backward(const Tensor& self, const Tensor& grad) {
  const Tensor matrix = self.mH();
  const int64_t n = matrix.size(-1);
  const Tensor top = at::cat({matrix, grad}, -1);
  const Tensor bottom = at::cat({at::zeros_like(matrix), matrix}, -1);
  const Tensor blocks = at::cat({top, bottom}, -2);
  return ops::linalg_matrix_exp::call(blocks).narrow(-2, 0, n).narrow(-1, n, n);
}

void check_matrices(const Batched& self, const char* name) {
  TORCH_CHECK(self.logical_dim() >= 2, name,
              ": The input tensor input must have at least 2 dimensions.");
}

// A matrix for each of the tolerances, which may differ between examples.
template <class Op>
Batched with_tolerances(const Batched& self, const Batched& atol, const Batched& rtol,
                        bool hermitian) {
  const auto size = common_batch_size({&self, &atol, &rtol});
  const auto tolerance = [&](const Batched& x) {
    return x.defined() ? std::make_optional(align_rank(x, self.logical_dim() - 2)) : std::nullopt;
  };
  const Tensor matrices = size ? ensure_batched(self, *size) : self.value;
  return {Op::call(matrices, tolerance(atol), tolerance(rtol), hermitian), size.has_value()};
}

// PyTorch's decomposition has no derivative where singular values are equal, as zeros are.
Batched pinv(const Batched& self, const Batched& atol, const Batched& rtol, bool hermitian) {
  check_matrices(self, "linalg.pinv");
  return with_tolerances<ops::linalg_pinv_atol_rtol_tensor>(self, atol, rtol, hermitian);
}

// PyTorch's decomposition writes the rank into a tensor that all examples would share.
template <class Op, class... Rest>
Batched matrix_rank(const Batched& self, const Rest&... rest) {
  check_matrices(self, "linalg.matrix_rank");
  // A tolerance for each matrix.
  const auto value = [&](const auto& argument) {
    if constexpr (std::is_same_v<std::decay_t<decltype(argument)>, Batched>) {
      return argument.defined() ? align_rank(argument, self.logical_dim() - 2) : Tensor();
    } else {
      return argument;
    }
  };
  if (detail::any_batched(rest...)) {
    const auto size = [](const auto&... each) {
      int64_t found = 0;
      const auto see = [&](const auto& argument) {
        if constexpr (std::is_same_v<std::decay_t<decltype(argument)>, Batched>) {
          found = argument.is_batched ? batch_size(argument) : found;
        }
      };
      (see(each), ...);
      return found;
    }(rest...);
    return {Op::call(ensure_batched(self, size), value(rest)...), true};
  }
  return {Op::call(self.value, value(rest)...), self.is_batched};
}

Batched matrix_rank_tensors(const Batched& self, const Batched& atol, const Batched& rtol,
                            bool hermitian) {
  check_matrices(self, "linalg.matrix_rank");
  return with_tolerances<ops::linalg_matrix_rank_atol_rtol_tensor>(self, atol, rtol, hermitian);
}

// The flag tells whether the message should say which matrix of a stack failed.
struct CheckErrors {
  static void call(const LevelPtr& level, const Tensor& info, c10::string_view name,
                   bool is_matrix) {
    const Batched x = unwrap_batched(level, info);
    ops::_linalg_check_errors::call(x.value, name, is_matrix && !x.is_batched);
  }
};

// Powers 0 to n - 1 of each element (n: as many as there are elements by default).
Batched vander(const Batched& x, std::optional<int64_t> n, bool increasing) {
  if (!x.is_batched) {
    return {ops::vander::call(x.value, n, increasing), false};
  }
  TORCH_CHECK(x.logical_dim() == 1, "vander: x must be a one-dimensional tensor, not one with ",
              x.logical_dim(), " dimensions");
  const int64_t count = n.value_or(x.value.size(1));
  TORCH_CHECK(count >= 0, "vander: N must be non-negative, but it is ", count);
  // linalg.vander has two columns at least.
  const Tensor powers =
      ops::linalg_vander::call(x.value, std::max<int64_t>(count, 2)).narrow(-1, 0, count);
  return {increasing ? powers : powers.flip(-1), true};
}

}  // namespace

FUNCTX_RULES(linalg) {
  batching_rule<ops::vander, vander>();
  for (const auto& [name, cores] : core_ranks()) {
    boxed_batching_rule({name.c_str()}, on_stacks);
  }
  batching_rule<ops::linalg_matrix_exp, matrix_exp>();
  batching_decomposition<ops::matrix_exp_backward, matrix_exp_backward>();
  using Float = std::optional<double>;
  batching_rule<ops::linalg_matrix_rank, matrix_rank<ops::linalg_matrix_rank, double, bool>>();
  batching_rule<ops::linalg_matrix_rank_tol_tensor,
                matrix_rank<ops::linalg_matrix_rank_tol_tensor, Batched, bool>>();
  batching_rule<ops::linalg_matrix_rank_atol_rtol_tensor, matrix_rank_tensors>();
  batching_rule<ops::linalg_matrix_rank_atol_rtol_float,
                matrix_rank<ops::linalg_matrix_rank_atol_rtol_float, Float, Float, bool>>();
  batching_rule<ops::linalg_pinv_atol_rtol_tensor, pinv>();
  Rules<ops::_linalg_check_errors>::batching = &CheckErrors::call;
  install_kernel<ops::_linalg_check_errors>();
}

}  // namespace functx
