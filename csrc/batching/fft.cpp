// Fourier transforms: all of torch.fft comes down to these three.
#include "batching/dims.h"
#include "batching/rule.h"

namespace functx {
namespace {

template <class Op, class... Rest>
Batched transform(const Batched& self, at::IntArrayRef dims, const Rest&... rest) {
  return {Op::call(self.value, physical_dims(self, dims), rest...), self.is_batched};
}

Batched complex_to_complex(const Batched& self, c10::SymIntArrayRef dims, int64_t normalization,
                           bool forward) {
  c10::SymDimVector physical;
  for (const auto& dim : dims) {
    physical.emplace_back(physical_dim(self, dim.guard_int(__FILE__, __LINE__)));
  }
  return {ops::_fft_c2c::call(self.value, physical, normalization, forward), self.is_batched};
}

}  // namespace

FUNCTX_RULES(fft) {
  batching_rule<ops::_fft_r2c, transform<ops::_fft_r2c, int64_t, bool>>();
  batching_rule<ops::_fft_c2r, transform<ops::_fft_c2r, int64_t, c10::SymInt>>();
  batching_rule<ops::_fft_c2c, complex_to_complex>();
}

}  // namespace functx
