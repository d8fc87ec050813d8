#include "core/torch_func.h"

#include <c10/macros/Export.h>

#include <vector>

// ATen/functorch/DynamicLayer.h, which declares this, includes a JSON library that PyTorch does not
// ship.
namespace at::functorch {
struct DynamicLayer;
TORCH_API const std::vector<DynamicLayer>& getDynamicLayerStack();
}  // namespace at::functorch

namespace functx {

int64_t torch_func_depth() {
  // The length in bytes, since the size of an element is unknown here: enough to compare depths.
  const auto& stack = at::functorch::getDynamicLayerStack();
  return static_cast<int64_t>(reinterpret_cast<const std::vector<char>&>(stack).size());
}

}  // namespace functx
