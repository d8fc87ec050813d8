#include "core/traits.h"

#include <algorithm>
#include <mutex>
#include <unordered_map>

#include "core/keys.h"
#include "core/schema.h"

namespace functx {
namespace {

bool returns_view(const c10::FunctionSchema& schema) {
  return std::any_of(schema.returns().begin(), schema.returns().end(), [](const auto& result) {
    return result.alias_info() != nullptr && !is_written(result);
  });
}

}  // namespace

OperatorTraits::OperatorTraits(const c10::OperatorHandle& op)
    : handle(op),
      tape_keys(op.hasKernelForDispatchKey(c10::DispatchKey::ADInplaceOrView) ? kViewTapeKeys
                                                                              : kTapeKeys),
      is_composite(op.hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd)),
      is_view(returns_view(op.schema())),
      is_differentiable_view(is_view && op.schema().name() != "aten::detach"),
      has_out(takes_out(op.schema())) {}

const OperatorTraits& traits_of(const c10::OperatorHandle& op) {
  static std::mutex mutex;
  static std::unordered_map<c10::OperatorName, OperatorTraits> known;
  const std::lock_guard<std::mutex> lock(mutex);
  return known.try_emplace(op.operator_name(), op).first->second;
}

}  // namespace functx
