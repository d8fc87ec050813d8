#include "forward_ad/sharing.h"

#include <c10/core/RefcountedDeleter.h>

#include <algorithm>
#include <functional>

namespace functx {
namespace {

// Equal for tensors that share memory; null where nobody knows.
const void* memory_of(const Tensor& plain) {
  if (!plain.has_storage()) {
    return nullptr;
  }
  const at::DataPtr& data = plain.storage().data_ptr();
  return data.get_deleter() == &c10::refcounted_deleter
             ? data.get_context()
             : static_cast<const void*>(plain.storage().unsafeGetStorageImpl());
}

// Of the plain tensors that a wrapper is made of: two to the power of the depth under nested jvps.
void collect_memory(const Tensor& tensor, c10::SmallVectorImpl<const void*>& memory) {
  if (const Wrapper* wrapper = as_wrapper(tensor)) {
    for (const Tensor& value : wrapper->values()) {
      collect_memory(value, memory);
    }
  } else if (tensor.defined()) {
    memory.push_back(memory_of(tensor));
  }
}

}  // namespace

bool may_share_memory(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) {
    return false;
  }
  if (a.is_same(b)) {
    return true;
  }
  c10::SmallVector<const void*, 4> of_a, of_b;
  collect_memory(a, of_a);
  collect_memory(b, of_b);
  std::sort(of_a.begin(), of_a.end(), std::less<>());
  const auto is_in_a = [&](const void* memory) {
    return std::binary_search(of_a.begin(), of_a.end(), memory, std::less<>());
  };
  const auto is_shared = [&](const void* memory) { return memory == nullptr || is_in_a(memory); };
  return is_in_a(nullptr) || std::any_of(of_b.begin(), of_b.end(), is_shared);
}

Tensor untaped(const LevelPtr& level, const Tensor& tensor) {
  auto* wrapper = at_level<DualTensor>(tensor, *level);
  return make_dual(level, wrapper != nullptr ? wrapper->lend() : Dual{tensor, {}});
}

Dual Lenders::settle(Dual result) const {
  if (result.has_tangent()) {
    for (DualTensor* lender : lenders_) {
      if (may_share_memory(result.tangent, lender->tangent())) {
        lender->lend_tangent();
        result.owns_tangent = false;
      }
    }
  }
  return result;
}

}  // namespace functx
