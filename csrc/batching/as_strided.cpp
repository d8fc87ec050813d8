// as_strided and its kin. Strides and offset speak of the memory of one example, and the offset of
// a wrapper is its value's: example b begins b batch strides further on.
//
// An example may see no other's memory. Where it is not clear that it does not, the view is
// refused, and the operators that copy take contiguous examples.
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <numeric>

#include "batching/dims.h"
#include "batching/rewrite.h"
#include "reverse_ad/recordable.h"

namespace functx {
namespace {

using Offset = std::optional<c10::SymInt>;

// Where the elements of the examples of `value` are: those of the first in `reach` + 1 places from
// the beginning on, and there again after every `period` (0: nowhere else); those of the others
// after one step more each.
struct Placement {
  explicit Placement(const Tensor& value)
      : step(value.stride(0)), extent(step * value.size(0)), begin(value.storage_offset()) {
    for (int64_t d = 1; d < value.dim(); ++d) {
      if (value.stride(d) >= extent) {
        period = std::gcd(period, value.stride(d));
      } else if (value.size(d) > 1) {
        reach += (value.size(d) - 1) * value.stride(d);
      }
    }
  }

  // Whether a view of these strides of every example keeps out of the places of the others.
  bool keeps_apart(at::IntArrayRef size, at::IntArrayRef stride, int64_t offset) const {
    int64_t span = 0;
    for (size_t d = 0; d < size.size(); ++d) {
      if (size[d] > 1 && (period == 0 || stride[d] % period != 0)) {
        span += (size[d] - 1) * stride[d];
      }
    }
    const auto fits = [&](int64_t first) { return first > reach - step && first + span < step; };
    const int64_t first = offset - begin;
    if (period == 0) {
      return fits(first);
    }
    const int64_t in_period = (first % period + period) % period;
    return extent - step + reach < period && (fits(in_period) || fits(in_period - period));
  }

  int64_t step;
  int64_t extent;
  int64_t begin;
  int64_t reach = 0;
  int64_t period = 0;
};

bool keeps_to_example(const Batched& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                      const Offset& offset) {
  const auto sizes = c10::asIntArrayRefSlowOpt(size);
  const auto strides = c10::asIntArrayRefSlowOpt(stride);
  const Tensor& value = self.value;
  // What is traced with symbolic shapes has been run with numbers.
  const bool is_symbolic = value.unsafeGetTensorImpl()->has_symbolic_sizes_strides() || !sizes ||
                           !strides || (offset && offset->is_symbolic());
  if (!self.is_batched || is_symbolic || value.size(0) <= 1 || value.stride(0) == 0 ||
      c10::multiply_integers(*sizes) == 0) {
    return true;
  }
  const int64_t first = offset ? offset->expect_int() : value.storage_offset();
  const bool is_same = *sizes == value.sizes().slice(1) && *strides == value.strides().slice(1) &&
                       first == value.storage_offset();
  return is_same || Placement(value).keeps_apart(*sizes, *strides, first);
}

c10::SymDimVector physical_stride(const Batched& self, c10::SymIntArrayRef stride) {
  c10::SymDimVector physical(stride.begin(), stride.end());
  if (self.is_batched) {
    physical.insert(physical.begin(), self.value.sym_stride(0));
  }
  return physical;
}

void check_keeps_to_example(const char* name, const Batched& self, c10::SymIntArrayRef size,
                            c10::SymIntArrayRef stride, const Offset& offset) {
  TORCH_CHECK(stride.size() == size.size(), "mismatch in length of strides and shape");
  TORCH_CHECK(keeps_to_example(self, size, stride, offset), "functx.vmap: ", name, " with size ",
              size, ", stride ", stride, " and offset ",
              offset.value_or(self.value.sym_storage_offset()),
              " would reach out of the memory of its example, which has shape ",
              self.value.sizes().slice(1), ", stride ", self.value.strides().slice(1),
              " and offset ", self.value.storage_offset(),
              ", and into that of others. Call it on x.contiguous(), or take the strides from "
              "x.stride() and the offset from x.storage_offset().");
}

Batched as_strided(const Batched& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                   const Offset& offset) {
  check_keeps_to_example("as_strided", self, size, stride, offset);
  return {self.value.as_strided_symint(physical_size(self, size), physical_stride(self, stride),
                                       offset),
          self.is_batched};
}

Batched as_strided_copy(const Batched& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                        const Offset& offset) {
  check_keeps_to_example("as_strided_copy", self, size, stride, offset);
  return {ops::as_strided_copy::call(self.value, physical_size(self, size),
                                     physical_stride(self, stride), offset),
          self.is_batched};
}

// A copy for each example of all the memory that `shared` spans, one after the other.
Tensor repeat_memory(const Tensor& shared, int64_t batch_size) {
  int64_t extent = 1;
  for (int64_t d = 0; d < shared.dim(); ++d) {
    extent = shared.size(d) == 0 ? 0 : extent + (shared.size(d) - 1) * shared.stride(d);
  }
  return shared.as_strided({extent}, {1}).expand({batch_size, extent}).contiguous();
}

Batched as_strided_scatter(const Batched& self, const Batched& src, c10::SymIntArrayRef size,
                           c10::SymIntArrayRef stride, const Offset& offset) {
  const auto batch = common_batch_size({&self, &src});
  const auto write = [&](const Batched& target, const Offset& first) {
    check_keeps_to_example("as_strided_scatter", target, size, stride, first);
    return ops::as_strided_scatter::call(target.value, ensure_batched(src, *batch),
                                         physical_size(target, size),
                                         physical_stride(target, stride), first);
  };
  if (!batch) {
    return {ops::as_strided_scatter::call(self.value, src.value, size, stride, offset), false};
  }
  if (self.is_batched && (*batch == 1 || self.value.stride(0) != 0)) {
    return {write(self, offset), true};
  }
  const Tensor shared = self.is_batched ? self.value.select(0, 0) : self.value;
  const Batched memory{repeat_memory(shared, *batch), true};
  const Tensor written = write(memory, offset ? *offset - shared.sym_storage_offset() : 0);
  return {written.as_strided_symint(physical_size(memory, shared.sym_sizes()),
                                    physical_stride(memory, shared.sym_strides()), 0),
          true};
}

// The examples to copy from, contiguous if the strides seem to mean such ones; none if `self` will
// do.
std::optional<Tensor> as_contiguous(const LevelPtr& level, const Tensor& self,
                                    c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                                    const Offset& offset) {
  const Batched x = unwrap_batched(level, self);
  const bool is_fresh = x.value.is_contiguous() && x.value.sym_storage_offset() == 0;
  if (level->transform != Transform::Vmap || is_fresh ||
      keeps_to_example(x, size, stride, offset)) {
    return std::nullopt;
  }
  return self.clone(at::MemoryFormat::Contiguous);
}

std::optional<Tensor> copy_contiguous(const LevelPtr& level, bool, const Tensor& self,
                                      c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                                      const Offset& offset) {
  const auto copy = as_contiguous(level, self, size, stride, offset);
  return copy ? std::make_optional(ops::as_strided_copy::call(*copy, size, stride, offset))
              : std::nullopt;
}

// A choice between what is written and the rest: PyTorch's gradient of a scatter has zeros where
// the old values are kept, instead of where they are not.
std::optional<Tensor> scatter_by_choice(const Tensor& self, const Tensor& src,
                                        c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                                        const Offset& offset) {
  if (!self.requires_grad() || !self.is_contiguous()) {
    return std::nullopt;
  }
  const auto scatter = [&](const Tensor& target, const Tensor& values) {
    return ops::as_strided_scatter::call(target, values, size, stride, offset);
  };
  const Tensor is_written = scatter(at::zeros_like(self, at::kBool), at::ones_like(src, at::kBool));
  return at::where(is_written, scatter(self.detach(), src), self);
}

// The derivative takes the strides to be those of a contiguous tensor.
std::optional<Tensor> scatter_contiguous(const LevelPtr& level, bool records, const Tensor& self,
                                         const Tensor& src, c10::SymIntArrayRef size,
                                         c10::SymIntArrayRef stride, const Offset& offset) {
  const bool is_needed = records && !self.is_contiguous() && level->transform == Transform::Vmap;
  const auto copy = is_needed ? self.clone(at::MemoryFormat::Contiguous)
                              : as_contiguous(level, self, size, stride, offset);
  if (copy) {
    return ops::as_strided_scatter::call(*copy, src, size, stride, offset);
  }
  return records ? scatter_by_choice(self, src, size, stride, offset) : std::nullopt;
}

}  // namespace

FUNCTX_RULES(as_strided) {
  batching_rule<ops::as_strided, as_strided>();
  batching_rule<ops::as_strided_copy, as_strided_copy>();
  batching_rule<ops::as_strided_scatter, as_strided_scatter>();
  rewritten<ops::as_strided_copy, copy_contiguous>();
  rewritten<ops::as_strided_scatter, scatter_contiguous>();
  recordable_on_plain_tensors<ops::as_strided_scatter, scatter_by_choice>();
}

}  // namespace functx
