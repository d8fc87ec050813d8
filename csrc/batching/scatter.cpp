// Gather and scatter: index and values have the rank of self, and the index is along one dim.
#include "batching/dims.h"
#include "batching/rewrite.h"
#include "batching/rule.h"

namespace functx {
namespace {

// Makes all tensors batched; a scalar example, which has dims 0 and -1 as in PyTorch, borrows a
// dimension to work along.
class SameRank {
 public:
  SameRank(const LevelPtr& level, int64_t size) : level_(level), size_(size) {}

  Tensor operator()(const Tensor& tensor) const {
    const Batched x = unwrap_batched(level_, tensor);
    const Tensor value = ensure_batched(x, size_);
    return value.dim() == 1 ? value.unsqueeze(1) : value;
  }

  template <class T>
  const T& operator()(const T& other) const {
    return other;
  }

 private:
  const LevelPtr& level_;
  int64_t size_;
};

int64_t dim_behind_batch(const Tensor& self, int64_t dim) {
  return physical_dim(dim, std::max<int64_t>(self.dim(), 1), true);
}

template <class T>
const T& value_of(const LevelPtr&, const T& other) {
  return other;
}
Tensor value_of(const LevelPtr& level, const Tensor& tensor) {
  return unwrap_batched(level, tensor).value;
}

template <class Op, bool shaped_like_index, class Signature = typename Op::schema>
struct AlongIndex;

template <class Op, bool shaped_like_index, class... Rest>
struct AlongIndex<Op, shaped_like_index, Tensor(const Tensor&, int64_t, const Tensor&, Rest...)> {
  static Tensor call(const LevelPtr& level, const Tensor& self, int64_t dim, const Tensor& index,
                     Rest... rest) {
    using detail::unpack;
    if (!detail::any_batched(unpack(level, self), unpack(level, index), unpack(level, rest)...)) {
      return make_batched(level, {Op::call(value_of(level, self), dim, value_of(level, index),
                                           value_of(level, rest)...),
                                  false});
    }
    const SameRank align(level, level->batch_size);
    Tensor result =
        Op::call(align(self), dim_behind_batch(self, dim), align(index), align(rest)...);
    const Tensor& like = shaped_like_index ? index : self;
    return make_batched(level, {like.dim() == 0 ? result.squeeze(1) : result, true});
  }
};

template <class Op, class... Rest>
struct AlongIndex<Op, false, Tensor&(Tensor&, int64_t, const Tensor&, Rest...)> {
  static Tensor& call(const LevelPtr& level, Tensor& self, int64_t dim, const Tensor& index,
                      Rest... rest) {
    using detail::unpack;
    const bool batched =
        detail::any_batched(unpack(level, self), unpack(level, index), unpack(level, rest)...);
    check_inplace(Op::name, level, self, batched);
    if (batched) {
      const SameRank align(level, level->batch_size);
      Tensor value = align(self);
      Op::call(value, dim_behind_batch(self, dim), align(index), align(rest)...);
    } else {
      Tensor value = value_of(level, self);
      Op::call(value, dim, value_of(level, index), value_of(level, rest)...);
    }
    return self;
  }
};

template <bool shaped_like_index, class... Ops>
void along_index() {
  ((Rules<Ops>::batching = &AlongIndex<Ops, shaped_like_index>::call, install_kernel<Ops>()), ...);
}

// Its gradient is dense inside of a transform, as that of an embedding is (embedding_rules.cpp).
std::optional<Tensor> gather_with_dense_gradient(const LevelPtr&, bool records, const Tensor& self,
                                                 int64_t dim, const Tensor& index,
                                                 bool sparse_grad) {
  return records && sparse_grad
             ? std::make_optional(ops::gather::call(self, dim, index, /*sparse_grad=*/false))
             : std::nullopt;
}

}  // namespace

FUNCTX_RULES(scatter) {
  along_index<true, ops::gather>();
  rewritten<ops::gather, gather_with_dense_gradient>();
  along_index<false, ops::scatter_src, ops::scatter_value, ops::scatter_reduce,
              ops::scatter_value_reduce, ops::scatter_add, ops::scatter_reduce_two>();
  along_index<false, ops::scatter__src, ops::scatter__value, ops::scatter__reduce,
              ops::scatter__value_reduce, ops::scatter_add_, ops::scatter_reduce__two>();
}

}  // namespace functx
