// x[i, :, j] and x[i, :, j] = y, with index tensors.
#include <ATen/ops/arange.h>
#include <ATen/ops/where.h>

#include "batching/data_dependent.h"
#include "batching/dims.h"
#include "batching/rule.h"

namespace functx {
namespace {

using IndexList = std::vector<Batched>;

bool is_mask(const Batched& index) {
  return index.value.scalar_type() == at::kBool || index.value.scalar_type() == at::kByte;
}

bool any_batched_index(const IndexList& indices) {
  return std::any_of(indices.begin(), indices.end(), [](const Batched& i) { return i.is_batched; });
}

c10::List<std::optional<Tensor>> values_of(const IndexList& indices) {
  c10::List<std::optional<Tensor>> values;
  for (const Batched& index : indices) {
    values.push_back(index.defined() ? std::make_optional(index.value) : std::nullopt);
  }
  return values;
}

// How the index tensors of one call lie in its result.
//
// PyTorch broadcasts them against each other. If they stand side by side, their dimensions replace
// those they index; if a slice comes between two of them, they go to the front.
class Layout {
 public:
  Layout(const Batched& self, const IndexList& indices) : self_(self) {
    for (const Batched& index : indices) {
      if (index.defined() && is_mask(index)) {
        push_mask(index);
      } else {
        entries_.push_back(index);
      }
    }
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (!entries_[i].defined()) {
        continue;
      }
      prefix_ = count_ == 0 ? static_cast<int64_t>(i) : prefix_;
      adjacent_ = adjacent_ && static_cast<int64_t>(i) == prefix_ + count_;
      ++count_;
      rank_ = std::max(rank_, entries_[i].logical_dim());
      batched_ = batched_ || entries_[i].is_batched;
    }
  }

  // The index tensors for the physical value of self.
  c10::List<std::optional<Tensor>> physical(int64_t batch_size) const {
    c10::List<std::optional<Tensor>> indices;
    if (self_.is_batched) {
      indices.push_back(batched_ ? std::make_optional(example_numbers(batch_size)) : std::nullopt);
    }
    for (const Batched& entry : entries_) {
      indices.push_back(entry.defined() ? std::make_optional(align_rank(entry, rank_))
                                        : std::nullopt);
    }
    return indices;
  }

  // What indexing the physical value gave, with the batch in front and the rest in logical order.
  Tensor to_logical(const Tensor& result) const {
    if (!batched_) {
      return adjacent_ ? result : result.movedim(rank_, 0);
    }
    if (!self_.is_batched) {
      return adjacent_ ? result.movedim(prefix_, 0) : result;
    }
    return moves_prefix() ? result.movedim(dims_from(1), dims_from(1 + prefix_)) : result;
  }

  // The inverse, for the values to put there: a batched self only.
  Tensor from_logical(const Batched& values) const {
    const int64_t rank = result_rank();
    Tensor value = align_rank(values, rank);
    if (!values.is_batched) {
      const bool keeps_order = batched_ ? !moves_prefix() : adjacent_;
      if (keeps_order || value.dim() > rank) {
        return value;
      }
      while (value.dim() <= rank) {
        value = value.unsqueeze(0);
      }
    }
    if (!batched_) {
      return adjacent_ ? value : value.movedim(0, rank_);
    }
    return moves_prefix() ? value.movedim(dims_from(1 + prefix_), dims_from(1)) : value;
  }

 private:
  // A mask is the indices of its true elements, one tensor for each of its dimensions. Masks that
  // differ between examples have to pick the same number of elements in each.
  void push_mask(const Batched& mask) {
    const auto first = static_cast<int64_t>(entries_.size());
    const auto sizes = self_.value.sizes().slice(self_.is_batched ? 1 : 0);
    const auto shape = mask.value.sizes().slice(mask.is_batched ? 1 : 0);
    for (int64_t d = 0; d < mask.logical_dim(); ++d) {
      TORCH_CHECK_INDEX(
          first + d < static_cast<int64_t>(sizes.size()) && shape[d] == sizes[first + d],
          "The shape of the mask ", shape, " at index ", d,
          " does not match the shape of the indexed tensor ", sizes, " at index ", first + d);
    }
    Tensor positions = mask.value.nonzero();
    if (mask.is_batched) {
      const Tensor picks = mask.value.ne(0).flatten(1);
      const int64_t count = common_count(picks.sum(1), "indexing with a boolean mask");
      positions = positions.slice(1, 1).unflatten(0, {batch_size(mask), count});
    }
    for (int64_t d = 0; d < mask.logical_dim(); ++d) {
      entries_.push_back({positions.select(-1, d), mask.is_batched});
    }
  }

  Tensor example_numbers(int64_t batch_size) const {
    std::vector<int64_t> shape(rank_ + 1, 1);
    shape[0] = batch_size;
    return at::arange(batch_size, self_.value.options().dtype(at::kLong)).view(shape);
  }

  // The example numbers stand at the front; with a slice between them and the indices proper, the
  // latter come to the front too.
  bool moves_prefix() const { return adjacent_ && prefix_ > 0 && rank_ > 0; }

  at::DimVector dims_from(int64_t first) const {
    at::DimVector dims;
    for (int64_t d = 0; d < rank_; ++d) {
      dims.push_back(first + d);
    }
    return dims;
  }

  int64_t result_rank() const { return self_.logical_dim() - count_ + rank_; }

  const Batched& self_;
  IndexList entries_;
  int64_t prefix_ = 0;
  int64_t count_ = 0;
  int64_t rank_ = 0;
  bool adjacent_ = true;
  bool batched_ = false;
};

template <class Op>
Batched index(const Batched& self, const IndexList& indices) {
  if (!self.is_batched && !any_batched_index(indices)) {
    return {Op::call(self.value, values_of(indices)), false};
  }
  const Layout layout(self, indices);
  int64_t size = self.is_batched ? batch_size(self) : 0;
  return {layout.to_logical(Op::call(self.value, layout.physical(size))), true};
}

// The only index of the call, if that is a mask which differs between examples.
const Batched* only_batched_mask(const IndexList& indices) {
  const Batched* found = nullptr;
  for (const Batched& index : indices) {
    if (index.defined()) {
      if (found != nullptr) {
        return nullptr;
      }
      found = &index;
    }
  }
  return found != nullptr && found->is_batched && is_mask(*found) ? found : nullptr;
}

int64_t dims_behind_mask(const Batched& self, const IndexList& indices, const Batched& mask) {
  int64_t prefix = 0;
  while (!indices[prefix].defined()) {
    ++prefix;
  }
  return self.logical_dim() - prefix - mask.logical_dim();
}

// Whether `values` is one value, or one for each of the dimensions behind those of the mask: then
// it does not matter how many elements the mask picks.
bool is_one_value(const Batched& self, const IndexList& indices, const Batched& mask,
                  const Batched& values) {
  return values.logical_dim() <= dims_behind_mask(self, indices, mask) ||
         values.value.numel() == 1 ||
         (values.is_batched && values.value.numel() == batch_size(values));
}

// x[mask] = value, where `is_one_value`.
Tensor put_where(const Batched& self, const IndexList& indices, const Batched& mask,
                 const Batched& values, bool accumulate) {
  const int64_t rest = dims_behind_mask(self, indices, mask);
  TORCH_CHECK(rest >= 0, "too many indices for tensor of dimension ", self.logical_dim());
  TORCH_CHECK(self.value.scalar_type() == values.value.scalar_type(),
              "Index put requires the source and destination dtypes match, got ",
              self.value.scalar_type(), " for the destination and ", values.value.scalar_type(),
              " for the source.");
  Tensor where = mask.value.scalar_type() == at::kBool ? mask.value : mask.value.ne(0);
  for (int64_t d = 0; d < rest; ++d) {
    where = where.unsqueeze(-1);
  }
  const int64_t rank = self.logical_dim();
  Tensor value = values.value;
  if (values.logical_dim() > rest) {
    value = values.is_batched ? value.flatten() : value.view({});
  }
  value = align_rank({value, values.is_batched}, rank);
  if (accumulate) {
    value = self.value.add(value);
  }
  return at::where(align_rank({where, true}, rank), value, self.value);
}

// `Op` is index_put or one of its kin, in place or not; self is batched.
template <class Op, class... Flags>
Tensor put(Batched& self, const IndexList& indices, const Batched& values, bool accumulate,
           Flags... flags) {
  const Layout layout(self, indices);
  return Op::call(self.value, layout.physical(batch_size(self)), layout.from_logical(values),
                  accumulate, flags...);
}

template <class Op>
Batched index_put(const Batched& self, const IndexList& indices, const Batched& values,
                  bool accumulate) {
  const Batched* index = std::find_if(indices.data(), indices.data() + indices.size(),
                                      [](const Batched& i) { return i.is_batched; });
  const bool shares_index = index == indices.data() + indices.size();
  if (shares_index && !self.is_batched && !values.is_batched) {
    return {Op::call(self.value, values_of(indices), values.value, accumulate), false};
  }
  const int64_t size = self.is_batched     ? batch_size(self)
                       : values.is_batched ? batch_size(values)
                                           : batch_size(*index);
  Batched target{ensure_batched(self, size), true};
  const Batched* mask = only_batched_mask(indices);
  if (mask != nullptr && is_one_value(target, indices, *mask, values)) {
    return {put_where(target, indices, *mask, values, accumulate), true};
  }
  return {put<Op>(target, indices, values, accumulate), true};
}

template <class Op, class... Flags>
void index_put_(const Batched& self, const IndexList& indices, const Batched& values,
                bool accumulate, const Flags&... flags) {
  Batched target = self;
  const Batched* mask = only_batched_mask(indices);
  if (!self.is_batched) {
    Op::call(target.value, values_of(indices), values.value, accumulate, flags...);
  } else if (mask != nullptr && is_one_value(self, indices, *mask, values)) {
    target.value.copy_(put_where(self, indices, *mask, values, accumulate));
  } else {
    put<Op>(target, indices, values, accumulate, flags...);
  }
}

}  // namespace

FUNCTX_RULES(indexing) {
  batching_rule<ops::index_Tensor, index<ops::index_Tensor>>();
  batching_rule<ops::_unsafe_index_Tensor, index<ops::_unsafe_index_Tensor>>();
  batching_rule<ops::index_put, index_put<ops::index_put>>();
  batching_rule<ops::_unsafe_index_put, index_put<ops::_unsafe_index_put>>();
  batching_rule<ops::index_put_, index_put_<ops::index_put_>>();
  batching_rule<ops::_index_put_impl_, index_put_<ops::_index_put_impl_, bool>>();
}

}  // namespace functx
