// Reductions of segments of a dimension. PyTorch takes lengths or offsets with dimensions in front,
// which the batch joins.
#include "batching/dims.h"
#include "batching/fold.h"

namespace functx {
namespace {

// As one of all tensors that have to have the batch dimension if one has it.
std::optional<Tensor> spread(const Batched& x, int64_t batch_size) {
  return x.defined() ? std::make_optional(ensure_batched(x, batch_size).contiguous())
                     : std::nullopt;
}

Batched segment_reduce(const Batched& data, c10::string_view reduce, const Batched& lengths,
                       const Batched& indices, const Batched& offsets, int64_t axis, bool unsafe,
                       const std::optional<at::Scalar>& initial) {
  using Op = ops::segment_reduce;
  const auto size = common_batch_size({&data, &lengths, &indices, &offsets});
  if (!size) {
    return {Op::call(data.value, reduce, optional_value(lengths), optional_value(indices),
                     optional_value(offsets), axis, unsafe, initial),
            false};
  }
  // What is not unsafe looks for the least of all lengths.
  return {Op::call(ensure_batched(data, *size), reduce, spread(lengths, *size),
                   spread(indices, *size), spread(offsets, *size),
                   physical_dim(axis, data.logical_dim(), true), unsafe || *size == 0, initial),
          true};
}

Batched segment_reduce_backward(const Batched& grad, const Batched& output, const Batched& data,
                                c10::string_view reduce, const Batched& lengths,
                                const Batched& offsets, int64_t axis,
                                const std::optional<at::Scalar>& initial) {
  using Op = ops::_segment_reduce_backward;
  const auto size = common_batch_size({&grad, &output, &data, &lengths, &offsets});
  if (!size) {
    return {Op::call(grad.value, output.value, data.value, reduce, optional_value(lengths),
                     optional_value(offsets), axis, initial),
            false};
  }
  return {Op::call(ensure_batched(grad, *size), ensure_batched(output, *size),
                   ensure_batched(data, *size), reduce, spread(lengths, *size),
                   spread(offsets, *size), physical_dim(axis, data.logical_dim(), true), initial),
          true};
}

}  // namespace

FUNCTX_RULES(segments) {
  batching_rule<ops::segment_reduce, segment_reduce>();
  batching_rule<ops::_segment_reduce_backward, segment_reduce_backward>();
}

}  // namespace functx
