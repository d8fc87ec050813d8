// torch.linalg.lstsq also returns the singular values of the matrix, with drivers that come across
// them, and PyTorch takes those for constants.
#include <ATen/ops/linalg_svdvals.h>

#include <optional>
#include <tuple>
#include <utility>

#include "batching/rewrite.h"
#include "core/keys.h"
#include "forward_ad/dual_tensor.h"
#include "reverse_ad/recordable.h"
#include "reverse_ad/recorded.h"

namespace functx {
namespace {

using Op = ops::linalg_lstsq;
using Results = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using Driver = std::optional<c10::string_view>;

Results with_tracked_values(Results results, const Tensor& matrix) {
  Tensor& values = std::get<3>(results);
  if (values.numel() > 0) {
    values = at::linalg_svdvals(matrix).expand_symint(values.sym_sizes());
  }
  return results;
}

std::optional<Results> on_wrappers(const LevelPtr& level, bool records, const Tensor& matrix,
                                   const Tensor& side, std::optional<double> rcond, Driver driver) {
  const bool has_tangent =
      level->transform == Transform::Jvp && unwrap_dual(level, matrix).has_tangent();
  if (!has_tangent && !(records && needs_tape(matrix))) {
    return std::nullopt;
  }
  return with_tracked_values(
      Kernel<Op>::run(c10::DispatchKeySet(kFrontKey), matrix, side, rcond, driver), matrix);
}

Results on_plain_tensors(c10::DispatchKeySet keys, const Tensor& matrix, const Tensor& side,
                         std::optional<double> rcond, Driver driver) {
  Results results = Op::redispatch(keys & kBelowGradKey, matrix, side, rcond, driver);
  return is_recorded_on_plain_tensors(matrix.requires_grad())
             ? with_tracked_values(std::move(results), matrix)
             : results;
}

}  // namespace

FUNCTX_RULES(least_squares) {
  rewritten<Op, on_wrappers>();
  register_kernel(c10::OperatorName(Op::name, Op::overload_name), kGradKey,
                  c10::KernelFunction::makeFromUnboxedFunction(TORCH_FN(on_plain_tensors)));
}

}  // namespace functx
