#include "core/registry.h"

#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

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

using Place = std::pair<c10::OperatorName, c10::DispatchKey>;

struct HashOfPlace {
  size_t operator()(const Place& place) const {
    return std::hash<c10::OperatorName>()(place.first) ^ static_cast<size_t>(place.second);
  }
};

struct Registration {
  c10::KernelFunction kernel;
  c10::RegistrationHandleRAII handle;
};

// Deregistering on exit would race with the dispatcher's own destruction: never destroyed.
std::unordered_map<Place, Registration, HashOfPlace>& registrations() {
  static auto& all = *new std::unordered_map<Place, Registration, HashOfPlace>();
  return all;
}

// A function's own, since the tables come here in whatever order their files are initialized.
std::vector<void (*)()>& tables() {
  static std::vector<void (*)()> all;
  return all;
}

}  // namespace

RuleTable::RuleTable(void (*registrations)()) { tables().push_back(registrations); }

void run_rule_tables() {
  for (const auto registrations : tables()) {
    registrations();
  }
}

void register_kernel(const c10::OperatorName& op, c10::DispatchKey key,
                     c10::KernelFunction kernel) {
  const std::lock_guard<std::mutex> lock(guarding());
  registrations().erase({op, key});
  auto handle =
      c10::Dispatcher::singleton().registerImpl(op, key, kernel, std::nullopt, nullptr, "functx");
  registrations().emplace(Place{op, key}, Registration{std::move(kernel), std::move(handle)});
}

std::optional<c10::KernelFunction> registered_kernel(const c10::OperatorName& op,
                                                     c10::DispatchKey key) {
  const std::lock_guard<std::mutex> lock(guarding());
  const auto found = registrations().find({op, key});
  return found == registrations().end() ? std::nullopt : std::optional(found->second.kernel);
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
