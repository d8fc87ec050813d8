#include "core/registry.h"

#include <mutex>
#include <unordered_map>
#include <utility>

namespace functx {
namespace {

std::mutex& guarding() {
  static std::mutex mutex;
  return mutex;
}

std::unordered_map<c10::OperatorName, Coverage>& claims() {
  static std::unordered_map<c10::OperatorName, Coverage> names;
  return names;
}

}  // namespace

void register_kernel(const c10::OperatorName& op, c10::DispatchKey key,
                     c10::KernelFunction kernel) {
  using Place = std::pair<c10::OperatorName, c10::DispatchKey>;
  struct Hash {
    size_t operator()(const Place& place) const {
      return std::hash<c10::OperatorName>()(place.first) ^ static_cast<size_t>(place.second);
    }
  };
  // Deregistering on exit would race with the dispatcher's own destruction: the handles are leaked.
  static auto& handles = *new std::unordered_map<Place, c10::RegistrationHandleRAII, Hash>();
  const std::lock_guard<std::mutex> lock(guarding());
  handles.erase({op, key});
  handles.emplace(Place{op, key}, c10::Dispatcher::singleton().registerImpl(
                                      op, key, std::move(kernel), std::nullopt, nullptr, "functx"));
}

bool claim(const c10::OperatorName& op, Coverage coverage) {
  const std::lock_guard<std::mutex> lock(guarding());
  return claims().try_emplace(op, coverage).second;
}

Coverage coverage_of(const c10::OperatorName& op) {
  const std::lock_guard<std::mutex> lock(guarding());
  const auto found = claims().find(op);
  return found == claims().end() ? Coverage::None : found->second;
}

}  // namespace functx
