#include "reverse_ad/values.h"

#include <ATen/Dispatch.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>

#include "core/keys.h"
#include "core/tracked.h"

namespace functx {
namespace {

thread_local int64_t assumed_derivatives = 0;

}  // namespace

Tensor plain_value(const Tensor& tensor) { return innermost_value(tensor); }

bool has_numbers(const Tensor& plain) {
  return plain.defined() && plain.layout() == at::kStrided && !plain.is_meta() &&
         !plain.key_set().has_any(kForeignWrapperKeys) && plain.has_storage();
}

bool can_be_read(const Tensor& plain) {
  return has_numbers(plain) && plain.is_cpu() && !plain.is_conj() && !plain.is_neg();
}

Sizes sizes_of(const Tensor& plain) {
  Sizes sizes;
  // A copy is not to be made as a wrapper.
  const HideFrom levels;
  const Tensor values = plain.is_contiguous() ? plain : plain.detach().contiguous();
  AT_DISPATCH_FLOATING_AND_COMPLEX_TYPES_AND2(
      at::kHalf, at::kBFloat16, values.scalar_type(), "sizes_of", [&] {
        const auto* entry = values.const_data_ptr<scalar_t>();
        const int64_t count = values.numel();
        for (int64_t i = 0; i < count; ++i) {
          const auto size = static_cast<double>(std::abs(entry[i]));
          if (size == 0) {
            sizes.any_zero = true;
          } else if (!std::isfinite(size)) {
            sizes.any_infinite = true;
          } else {
            sizes.smallest = std::min(sizes.smallest, size);
            sizes.largest = std::max(sizes.largest, size);
          }
        }
      });
  return sizes;
}

bool any_zero(const Tensor& plain) {
  return can_be_read(plain) ? sizes_of(plain).any_zero : plain.detach().eq(0).any().item<bool>();
}

Tensor constant(const Tensor& tensor) {
  Wrapper* wrapper = as_wrapper(tensor);
  if (wrapper == nullptr) {
    return tensor.requires_grad() ? tensor.detach() : tensor;
  }
  const Tensor value = constant(wrapper->values()[0]);
  return wrapper->level()->transform == Transform::Vmap ? wrapper->around({value}) : value;
}

int64_t active_derivatives() {
  const auto levels = active_levels();
  const int64_t count = std::count_if(levels.begin(), levels.end(), [](const LevelPtr& level) {
    return level->transform != Transform::Vmap && !level->is_identity;
  });
  return std::max(count, assumed_derivatives);
}

Derivatives current_derivatives() {
  return {active_derivatives(), c10::impl::tls_is_dispatch_key_included(kGradKey)};
}

AssumeDerivatives::AssumeDerivatives(const Derivatives& derivatives)
    : before_{assumed_derivatives, c10::impl::tls_is_dispatch_key_included(kGradKey)} {
  assumed_derivatives = derivatives.count;
  c10::impl::tls_set_dispatch_key_included(kGradKey, derivatives.by_tape);
}

AssumeDerivatives::~AssumeDerivatives() {
  assumed_derivatives = before_.count;
  c10::impl::tls_set_dispatch_key_included(kGradKey, before_.by_tape);
}

}  // namespace functx
