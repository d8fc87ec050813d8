#include "reverse_ad/constants.h"

#include <mutex>
#include <string>
#include <unordered_set>

#include "batching/warnings.h"

namespace functx {

void warn_of_constant(const char* name, const char* remedy) {
  static std::mutex mutex;
  static std::unordered_set<std::string> warned;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!warned.insert(name).second) {
      return;
    }
  }
  warn(std::string("functx.grad: ") + name +
       " has no derivative here, and its result, which depends on what is being differentiated, "
       "counts as a constant. " +
       remedy);
}

}  // namespace functx
