// Views that change a tensor's own geometry. The value may be known elsewhere by its old geometry,
// to the caller of vmap for one, so the wrapper gets a new one.
#include "batching/rule.h"

namespace functx {
namespace {

template <class Op, class View, class Signature = typename Op::schema>
struct InplaceView;

template <class Op, class View, class... Args>
struct InplaceView<Op, View, Tensor&(Tensor&, Args...)> {
  static Tensor& call(const LevelPtr& level, Tensor& self, Args... args) {
    const Tensor untaped = make_batched(level, unwrap_batched(level, self));
    // The batching rule of the view finds the physical arguments.
    const Tensor view = View::call(untaped, args...);
    self.unsafeGetTensorImpl()->shallow_copy_from(view.getIntrusivePtr());
    return self;
  }
};

// as_strided_ takes and returns its tensor as const.
template <class Op, class View, class... Args>
struct InplaceView<Op, View, const Tensor&(const Tensor&, Args...)> {
  static const Tensor& call(const LevelPtr& level, const Tensor& self, Args... args) {
    const Tensor untaped = make_batched(level, unwrap_batched(level, self));
    const Tensor view = View::call(untaped, args...);
    self.unsafeGetTensorImpl()->shallow_copy_from(view.getIntrusivePtr());
    return self;
  }
};

template <class Op, class View>
void inplace_view() {
  Rules<Op>::batching = &InplaceView<Op, View>::call;
  install_kernel<Op>();
}

[[noreturn]] void refuse(const char* name) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "functx.vmap: ", name,
                              " replaces the memory of a tensor, and a tensor inside vmap has none "
                              "of its own. Use an operator that returns a new tensor, such as "
                              "new_empty, reshape or copy_.");
}

template <class Op, class Signature = typename Op::schema>
struct Refused;

template <class Op, class Result, class... Args>
struct Refused<Op, Result(Args...)> {
  static Result call(const LevelPtr&, Args...) { refuse(Op::name); }
};

template <class... Ops>
void refused() {
  ((Rules<Ops>::batching = &Refused<Ops>::call, install_kernel<Ops>()), ...);
}

// To the size that it has: kernels that write into a given tensor do that.
const Tensor& resize_(const LevelPtr&, const Tensor& self, c10::SymIntArrayRef size,
                      std::optional<at::MemoryFormat>) {
  if (self.sym_sizes() != size) {
    refuse("aten::resize_");
  }
  return self;
}

const Tensor& resize_as_(const LevelPtr&, const Tensor& self, const Tensor& other,
                         std::optional<at::MemoryFormat>) {
  if (self.sym_sizes() != other.sym_sizes()) {
    refuse("aten::resize_as_");
  }
  return self;
}

}  // namespace

FUNCTX_RULES(inplace_views) {
  inplace_view<ops::t_, ops::t>();
  inplace_view<ops::transpose_, ops::transpose_int>();
  inplace_view<ops::squeeze_, ops::squeeze>();
  inplace_view<ops::squeeze__dim, ops::squeeze_dim>();
  inplace_view<ops::squeeze__dims, ops::squeeze_dims>();
  inplace_view<ops::unsqueeze_, ops::unsqueeze>();
  inplace_view<ops::as_strided_, ops::as_strided>();
  inplace_view<ops::detach_, ops::detach>();
  refused<ops::set_, ops::set__source_Tensor, ops::set__source_Storage,
          ops::set__source_Storage_storage_offset>();
  Rules<ops::resize_>::batching = resize_;
  install_kernel<ops::resize_>();
  Rules<ops::resize_as_>::batching = resize_as_;
  install_kernel<ops::resize_as_>();
}

}  // namespace functx
