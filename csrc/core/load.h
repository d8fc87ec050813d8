// What functx puts into PyTorch's dispatcher: all of it at once, before the first transform. A
// program that loads the extension and uses none has the dispatcher as it was.
#pragma once

#include <optional>
#include <string>

namespace functx {

// The name of a dispatch key that functx needs to itself, and another library has kernels at.
struct TakenKey {
  std::string key;
  std::string by;
};
std::optional<TakenKey> find_taken_key();

// What to tell who wants to use functx all the same.
std::string message_of(const TakenKey& taken);

// Registers kernels, rules and fallbacks, once. Raises if a key is taken.
void load();

// Called on every thread before it enters its first transform.
inline thread_local bool is_thread_prepared = false;
void prepare_thread();

// What else there is to do then: for the binding, of which the core knows nothing.
void also_prepare_threads_by(void (*prepare)());

}  // namespace functx
