// A scan by doubling: in each step the entries are joined with those some way before them, so that
// each is then the result of twice as many.
#pragma once

#include "forward_ad/rule.h"

namespace functx {

struct Step {
  int64_t dim, distance, size;

  Tensor first(const Tensor& all) const { return all.narrow(dim, 0, distance); }
  Tensor before(const Tensor& all) const { return all.narrow(dim, 0, size - distance); }
  Tensor here(const Tensor& all) const { return all.narrow(dim, distance, size - distance); }

  // What `all` becomes: its first entries have nothing before them.
  Tensor join(const Tensor& all, Tensor joined) const {
    return ops::cat::call(std::vector<Tensor>{first(all), std::move(joined)}, dim);
  }
  // `all` and `terms`, which are those of the entries before.
  Tensor add_before(const Tensor& all, const Tensor& terms) const {
    const Tensor last = all.narrow(dim, size - distance, distance);
    return ops::cat::call(std::vector<Tensor>{before(all).add(terms), last}, dim);
  }
};

inline std::vector<Step> steps_along(const Tensor& x, int64_t dim) {
  const int64_t size = x.dim() == 0 ? 1 : x.sym_size(dim).guard_int(__FILE__, __LINE__);
  std::vector<Step> steps;
  for (int64_t distance = 1; distance < size; distance *= 2) {
    steps.push_back({dim, distance, size});
  }
  return steps;
}

}  // namespace functx
