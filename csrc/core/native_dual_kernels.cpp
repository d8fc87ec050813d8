// Kernels for the operators PyTorch's own forward AD is made of. They act on the tape of a wrapper,
// not on its value, so they go straight to the autograd kernel; below it there is nothing to do.
#include <ATen/Operators.h>

#include "core/alias.h"
#include "core/kernel.h"

namespace functx {

namespace ops = at::_ops;

namespace {

template <class Op, class Signature = typename Op::schema>
struct TapeKernel;

template <class Op, class... Args>
struct TapeKernel<Op, Tensor(const Tensor&, Args...)> {
  static Tensor run(c10::DispatchKeySet keys, const Tensor& primal, Args... args) {
    const Wrapper* wrapper = as_wrapper(primal);
    if (wrapper == nullptr) {
      return Op::redispatch(keys.remove(kFrontKey), primal, std::forward<Args>(args)...);
    }
    if (keys.has(kFrontKey)) {
      if (yields_to_torch_func(*wrapper->level(), keys)) {
        return Op::redispatch(keys.remove(kFrontKey), primal, std::forward<Args>(args)...);
      }
      return Op::redispatch(traits_of<Op>().tape_keys, primal, std::forward<Args>(args)...);
    }
    return alias_wrapper(primal);
  }
};

template <class Op>
void tape_kernel() {
  const c10::OperatorName name(Op::name, Op::overload_name);
  claim(name, Coverage::Rule);
  for (const auto key : {kFrontKey, kBackKey}) {
    register_kernel(name, key,
                    c10::KernelFunction::makeFromUnboxedFunction(TORCH_FN(TapeKernel<Op>::run)));
  }
}

bool is_same_size(const LevelPtr&, const Tensor& self, const Tensor& other) {
  return self.sym_sizes() == other.sym_sizes();
}

// Wrappers have no storage to differ in.
bool has_same_storage_numel(const LevelPtr&, const Tensor&, const Tensor&) { return true; }

template <class Op>
void same_for_all_transforms(typename Rules<Op>::Rule rule) {
  Rules<Op>::batching = rule;
  Rules<Op>::dual = rule;
  install_kernel<Op>();
}

}  // namespace

FUNCTX_RULES(native_dual) {
  tape_kernel<ops::_make_dual>();
  tape_kernel<ops::_fw_primal>();
  same_for_all_transforms<ops::is_same_size>(is_same_size);
  same_for_all_transforms<ops::_has_same_storage_numel>(has_same_storage_numel);
}

}  // namespace functx
