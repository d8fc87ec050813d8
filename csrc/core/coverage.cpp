#include "core/coverage.h"

#include <ATen/core/boxing/KernelFunction.h>

#include "core/boxed.h"
#include "core/keys.h"
#include "core/load.h"
#include "core/registry.h"
#include "core/traits.h"

namespace functx {
namespace {

// Without a backend kernel of ours, such an operator would run PyTorch's generic kernel on the
// wrapper, which writes into a plain output.
bool has_generic_backend_kernel(const c10::OperatorHandle& op) {
  return op.hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutograd) ||
         op.hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutogradNonFunctional);
}

}  // namespace

void cover(const c10::OperatorHandle& op) {
  const auto& name = op.operator_name();
  const bool decomposes = traits_of(op).is_composite;
  if (!claim(name, decomposes ? Coverage::Decomposition : Coverage::Fallback)) {
    return;
  }
  register_kernel(name, kFrontKey, boxed_kernel_of(op));
  // A back kernel would switch off the decomposition at the autograd key.
  if (!decomposes && has_generic_backend_kernel(op)) {
    register_kernel(name, kBackKey, boxed_kernel_of(op));
  }
}

void cover_all_operators() {
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : dispatcher.getAllOpNames()) {
    if (const auto op = dispatcher.findSchema(name)) {
      cover(*op);
    }
  }
}

std::map<std::string, std::string> operator_coverage(bool (*has_rule)(const c10::OperatorHandle&)) {
  load();
  auto& dispatcher = c10::Dispatcher::singleton();
  std::map<std::string, std::string> names;
  for (const auto& name : dispatcher.getAllOpNames()) {
    const auto op = dispatcher.findSchema(name);
    if (!op) {
      continue;
    }
    const Coverage coverage = coverage_of(name);
    const bool is_rule =
        coverage == Coverage::Rule || (coverage == Coverage::Fallback && has_rule(*op));
    names[c10::toString(name)] = is_rule                               ? "rule"
                                 : coverage == Coverage::Decomposition ? "decomposition"
                                 : coverage == Coverage::Fallback      ? "fallback"
                                                                       : "none";
  }
  return names;
}

}  // namespace functx
