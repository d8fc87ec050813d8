// `out=` variants of operators that have a derivative here, but none in PyTorch: it would write the
// value and drop the gradient.
#include <c10/core/GradMode.h>

#include <algorithm>
#include <memory>

#include "core/boxed.h"
#include "core/captured.h"
#include "core/coverage.h"
#include "core/registry.h"
#include "core/rule_scope.h"
#include "special/derivative.h"

namespace functx {
namespace {

class WithoutGradient final : public c10::OperatorKernel {
 public:
  explicit WithoutGradient(const c10::OperatorHandle& op) : traits_(op) {}

  void operator()(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                  torch::jit::Stack* stack) {
    const auto arguments = torch::jit::last(*stack, op.schema().arguments().size());
    const bool is_tracked =
        std::any_of(arguments.begin(), arguments.end(), [](const c10::IValue& argument) {
          return argument.isTensor() && needs_tape(argument.toTensor());
        });
    TORCH_CHECK(!is_tracked || autograd_is_excluded(), op.schema().name(),
                "(): functions with out=... arguments don't support automatic differentiation, but "
                "one of the arguments requires grad.");
    if (keys.has(kFrontKey)) {
      run_boxed(traits_, keys, stack);
    } else {
      op.redispatchBoxed(keys & kBelowGradKey, stack);
    }
  }

 private:
  OperatorTraits traits_;
};

}  // namespace

void refuse_gradient_into_out(const c10::OperatorName& name) {
  const auto op = c10::Dispatcher::singleton().findSchema(name);
  if (!op) {
    return;
  }
  cover(*op);
  for (const auto key : {kFrontKey, kGradKey}) {
    register_kernel(
        name, key,
        c10::KernelFunction::makeFromBoxedFunctor(std::make_unique<WithoutGradient>(*op)));
  }
}

}  // namespace functx
