// Linear algebra that PyTorch does on stacks of matrices: the batch is one more dimension of the
// stack. What it gains by a typed kernel is nothing next to what a factorisation costs.
#include <unordered_map>

#include "batching/boxed_rules.h"
#include "batching/dims.h"
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
      {"aten::linalg_matrix_exp", {2}},
      {"aten::linalg_householder_product", {2, 1}},
      {"aten::ormqr", {2, 1, 2}},
      {"aten::lu_unpack", {2, 1}},
      {"aten::linalg_ldl_solve", {2, 1, 2}},
  };
  return table;
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
                                         x.logical_dim())
                            : x.value;
  }
  op.callBoxed(&values);
  for (auto& value : values) {
    stack->emplace_back(value.isTensor()
                            ? c10::IValue(make_batched(level, {value.toTensor(), any_batched}))
                            : std::move(value));
  }
}

// The flag tells whether the message should say which matrix of a stack failed.
struct CheckErrors {
  static void call(const LevelPtr& level, const Tensor& info, c10::string_view name,
                   bool is_matrix) {
    const Batched x = unwrap_batched(level, info);
    ops::_linalg_check_errors::call(x.value, name, is_matrix && !x.is_batched);
  }
};

}  // namespace

FUNCTX_RULES(linalg) {
  for (const auto& [name, cores] : core_ranks()) {
    boxed_batching_rule({name.c_str()}, on_stacks);
  }
  Rules<ops::_linalg_check_errors>::batching = &CheckErrors::call;
  install_kernel<ops::_linalg_check_errors>();
}

}  // namespace functx
