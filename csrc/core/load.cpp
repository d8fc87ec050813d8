#include "core/load.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <array>
#include <mutex>
#include <utility>
#include <vector>

#include "core/boxed.h"
#include "core/coverage.h"
#include "core/keys.h"
#include "core/registry.h"

namespace functx {
namespace {

constexpr std::array kKeys{kFrontKey, kModeKey, kGradKey, kBackKey, kTapeKey, kGenericKey};

// PyTorch has derivative kernels at this one.
constexpr bool may_have_kernels(c10::DispatchKey key) { return key == kTapeKey; }

void fall_back(c10::DispatchKey key, torch::CppFunction function) {
  // Deregistering on exit would race with the dispatcher's own destruction: never destroyed.
  static auto& libraries = *new std::vector<torch::Library>();
  libraries.emplace_back(torch::Library::IMPL, "_", key, "functx", 0).fallback(std::move(function));
}

void register_fallbacks() {
  for (const auto key : {kFrontKey, kBackKey}) {
    fall_back(key, torch::CppFunction::makeFromBoxedFunction<&boxed_kernel>());
  }
  // These are included for a thread, and so seen by every operator that it calls, those included
  // that a library registers later. Without a fallthrough, whoever has no kernel would raise.
  for (const auto key : {kModeKey, kGradKey}) {
    fall_back(key, torch::CppFunction::makeFallthrough());
  }
  // PyTorch has none here, so an operator without derivative kernel would not be found on a wrapper
  // that has a tape.
  fall_back(kTapeKey, torch::autograd::basicAutogradNotImplementedFallback());
}

std::mutex loading;
bool is_loaded = false;
void (*prepare_more)() = nullptr;

}  // namespace

std::optional<TakenKey> find_taken_key() {
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto key : kKeys) {
    if (dispatcher.hasBackendFallbackForDispatchKey(key)) {
      return TakenKey{c10::toString(key), "a fallback"};
    }
  }
  for (const auto& name : dispatcher.getAllOpNames()) {
    const auto op = dispatcher.findOp(name);
    for (const auto key : kKeys) {
      if (op && !may_have_kernels(key) && op->hasKernelForDispatchKey(key)) {
        return TakenKey{c10::toString(key), "a kernel for " + c10::toString(name)};
      }
    }
  }
  return std::nullopt;
}

std::string message_of(const TakenKey& taken) {
  return "functx: the dispatch key " + taken.key + " is taken: another library has registered " +
         taken.by +
         " there. functx needs that key to itself. Use functx in a process that does not import "
         "the other library, or free the key before the first transform is called.";
}

void load() {
  const std::lock_guard<std::mutex> lock(loading);
  if (is_loaded) {
    return;
  }
  const auto taken = find_taken_key();
  TORCH_CHECK(!taken.has_value(), message_of(*taken));
  run_rule_tables();
  register_fallbacks();
  cover_all_operators();
  is_loaded = true;
}

void prepare_thread() {
  load();
  if (prepare_more != nullptr) {
    prepare_more();
  }
  is_thread_prepared = true;
}

void also_prepare_threads_by(void (*prepare)()) { prepare_more = prepare; }

}  // namespace functx
