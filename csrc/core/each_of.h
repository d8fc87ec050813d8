// Division by what a caller or the size of a batch may have made zero, of which a processor dies.
#pragma once

#include <c10/util/Exception.h>

namespace functx {

// The share of `size` that each of `parts` has; raises if there are none.
template <class Size>
Size each_of(const Size& size, const Size& parts) {
  TORCH_CHECK(parts != 0, "functx: a size of ", size, " cannot be divided into ", parts, " parts.");
  return size / parts;
}

}  // namespace functx
