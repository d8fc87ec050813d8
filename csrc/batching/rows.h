// Rows of a table of each example, by number.
#pragma once

#include <ATen/ops/arange.h>

#include "core/wrapper.h"

namespace functx {

// tables [B, n, ...], numbers [B, m] to [B, m, ...]: the rows numbers[b] of tables[b]. They are
// looked up in one long table; if a number is out of range of its own table, all are made to be.
inline Tensor select_rows(const Tensor& tables, const Tensor& numbers) {
  const int64_t size = tables.size(0), length = tables.size(1);
  Tensor first = at::arange(size, numbers.options().dtype(at::kLong)).mul(length).unsqueeze(1);
  if (numbers.numel() > 0) {
    const Tensor is_outside = numbers.amin().lt(0).logical_or(numbers.amax().ge(length));
    first = first.masked_fill(is_outside, std::numeric_limits<int64_t>::min() / 2);
  }
  const Tensor all = numbers.add(first).flatten();
  return tables.flatten(0, 1).index_select(0, all).unflatten(0, numbers.sizes());
}

}  // namespace functx
