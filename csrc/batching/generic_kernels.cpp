// Operators for which PyTorch's own kernel for any backend is written in other operators, as
// select_copy is in select and clone. Under vmap it runs on the batched tensors themselves.
#include "batching/boxed_rules.h"
#include "batching/rule.h"
#include "core/registry.h"

namespace functx {
namespace {

// Functional operators only: what a kernel writes to has to be its own.
void run_generic_kernel(const c10::OperatorHandle& op, const LevelPtr& level,
                        torch::jit::Stack* stack) {
  for (auto& argument : torch::jit::last(*stack, op.schema().arguments().size())) {
    const_cast<c10::IValue&>(argument) = without_tape(level, argument);
  }
  op.redispatchBoxed(c10::DispatchKeySet(kGenericKey), stack);
}

FUNCTX_RULES(generic_kernels) {
  boxed_batching_rule({"aten::view_copy",
                       "aten::view_copy.dtype",
                       "aten::expand_copy",
                       "aten::permute_copy",
                       "aten::t_copy",
                       "aten::transpose_copy.int",
                       "aten::squeeze_copy",
                       "aten::squeeze_copy.dim",
                       "aten::squeeze_copy.dims",
                       "aten::unsqueeze_copy",
                       "aten::detach_copy",
                       "aten::alias_copy",
                       "aten::select_copy.int",
                       "aten::slice_copy.Tensor",
                       "aten::diagonal_copy",
                       "aten::unfold_copy",
                       "aten::view_as_real_copy",
                       "aten::view_as_complex_copy",
                       "aten::unbind_copy.int",
                       "aten::split_copy.Tensor",
                       "aten::split_with_sizes_copy",
                       "aten::narrow_copy",
                       "aten::_reshape_copy",
                       "aten::_conj_copy",
                       "aten::_neg_view_copy",
                       "aten::_reshape_alias_copy"},
                      run_generic_kernel);
  boxed_batching_rule({"aten::dist", "aten::addr", "aten::_unsafe_masked_index",
                       "aten::_unsafe_masked_index_put_accumulate", "aten::pixel_shuffle",
                       "aten::pixel_unshuffle", "aten::fill.Tensor", "aten::fill.Scalar"},
                      run_generic_kernel);
}

}  // namespace
}  // namespace functx
