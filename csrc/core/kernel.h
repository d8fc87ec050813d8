// The typed kernel of an operator: from the dispatcher to a rule and back.
//
// One function serves the front and the back key. At the front it decides whether autograd has to
// record first, and before that autocast to cast; at the back they have done so. Then the rule of
// the top level's transform runs.
#pragma once

#include <ATen/core/boxing/BoxedKernel.h>
#include <ATen/core/boxing/KernelFunction.h>

#include <optional>
#include <type_traits>
#include <utility>

#include "core/autocast.h"
#include "core/boxed.h"
#include "core/captured.h"
#include "core/empty_batch.h"
#include "core/operands.h"
#include "core/recording.h"
#include "core/registry.h"
#include "core/rule_scope.h"
#include "core/stand_ins.h"
#include "core/torch_func.h"
#include "core/traits.h"

namespace functx {

// The rules of one operator. A rule is the operator's own signature behind the level it is for.
template <class Op, class Signature = typename Op::schema>
struct Rules;

template <class Op, class Result, class... Args>
struct Rules<Op, Result(Args...)> {
  using Rule = Result (*)(const LevelPtr&, Args...);
  static inline Rule batching = nullptr;
  static inline Rule dual = nullptr;
};

template <class Signature>
inline constexpr bool is_inplace = false;
template <class... Rest>
inline constexpr bool is_inplace<Tensor&(Tensor&, Rest...)> = true;

namespace detail {

inline void collect(const Tensor& tensor, std::vector<Tensor>& tensors) {
  tensors.push_back(tensor);
}
inline void collect(const std::optional<Tensor>& tensor, std::vector<Tensor>& tensors) {
  tensors.push_back(tensor.value_or(Tensor()));
}
template <class T>
void collect(const T&, std::vector<Tensor>&) {}

}  // namespace detail

template <class Op, class Signature = typename Op::schema>
struct Kernel;

template <class Op, class Result, class... Args>
struct Kernel<Op, Result(Args...)> {
  static Result run(c10::DispatchKeySet keys, Args... args) {
    const Operands operands(args...);
    Wrapper* top = operands.top();
    const auto& traits = traits_of<Op>();
    if (top == nullptr) [[unlikely]] {
      std::optional<HideFrom> from_kernel;
      if (!traits.is_composite && goes_to_kernel(keys)) {
        from_kernel.emplace();
      }
      return Op::redispatch(keys.remove(kFrontKey), std::forward<Args>(args)...);
    }
    const LevelPtr& level = top->level();
    const auto rule = level->transform == Transform::Vmap ? Rules<Op>::batching : Rules<Op>::dual;
    if (keys.has(kFrontKey)) {
      if (yields_to_torch_func(operands, keys)) [[unlikely]] {
        return Op::redispatch(keys.remove(kFrontKey), std::forward<Args>(args)...);
      }
      if (autocast_is_on(keys)) [[unlikely]] {
        if (const auto casting = autocast_keys(traits.handle, keys); !casting.empty()) {
          return Op::redispatch(casting, std::forward<Args>(args)...);
        }
      }
      if (need_stand_ins<Args...>(operands, args...)) [[unlikely]] {
        return call_boxed<&call_with_stand_ins>(keys, std::forward<Args>(args)...);
      }
      const bool records = is_recorded(traits, operands, *level);
      if (records) {
        level->may_record = true;
        check_written(args...);
      }
      if (records || (rule == nullptr && traits.is_composite)) {
        if constexpr (is_inplace<Result(Args...)>) {
          check_not_captured(Op::name, args...);
          if (!traits.is_composite) {
            return record_write(traits, *level, args...);
          }
        }
        return Op::redispatch(traits.tape_keys, std::forward<Args>(args)...);
      }
      if constexpr (is_inplace<Result(Args...)>) {
        bump_version(args...);
      }
      if constexpr (std::is_same_v<Result, Tensor> || std::is_same_v<Result, std::vector<Tensor>>) {
        if (traits.is_differentiable_view) {
          Result views = apply(rule, level, std::forward<Args>(args)...);
          note_unrecorded_view(views, top);
          return views;
        }
      }
    }
    if constexpr (is_inplace<Result(Args...)>) {
      if (!keys.has(kFrontKey)) {
        return write(rule, level, args...);
      }
    }
    return apply(rule, level, std::forward<Args>(args)...);
  }

 private:
  template <void (*kernel)(const c10::OperatorHandle&, c10::DispatchKeySet, torch::jit::Stack*)>
  static Result call_boxed(c10::DispatchKeySet keys, Args... args) {
    static const auto boxed = c10::BoxedKernel::makeFromFunction<kernel>();
    return c10::impl::BoxedKernelWrapper<Result(Args...)>::call(boxed, traits_of<Op>().handle, keys,
                                                                std::forward<Args>(args)...);
  }

  template <class... Rest>
  static Tensor& record_write(const OperatorTraits& traits, const Level& level, Tensor& self,
                              Rest&... rest) {
    const bool is_below = level_id_of(self) != level.id;
    if (is_below) [[unlikely]] {
      std::vector<Tensor> sources;
      (detail::collect(rest, sources), ...);
      check_one_tape(Op::name, level, self, sources);
    }
    Op::redispatch(traits.tape_keys, self, rest...);
    if (is_below) [[unlikely]] {
      note_tape_above(self, level);
    }
    return self;
  }

  // The tape of the level has recorded the write; `self` may be on it, and is a constant below.
  template <class... Rest>
  static Tensor& write(typename Rules<Op>::Rule rule, const LevelPtr& level, Tensor& self,
                       Rest&... rest) {
    if (level_id_of(self) != level->id && self.requires_grad()) [[unlikely]] {
      Tensor data = without_own_tape(self);
      apply(rule, level, data, rest...);
      return self;
    }
    return apply(rule, level, self, rest...);
  }

  static Result apply(typename Rules<Op>::Rule rule, const LevelPtr& level, Args... args) {
    const RuleScope scope(*level, /*autocasts=*/rule == nullptr);
    if (rule == nullptr) {
      return call_boxed<&boxed_kernel>(c10::DispatchKeySet(kBackKey), std::forward<Args>(args)...);
    }
    if (has_no_examples(*level) && !takes_rule(traits_of<Op>().handle)) [[unlikely]] {
      return call_boxed<&empty_batch_kernel>(c10::DispatchKeySet(kBackKey),
                                             std::forward<Args>(args)...);
    }
    return rule(level, std::forward<Args>(args)...);
  }

  template <class First, class... Rest>
  static void check_written(const First& first, const Rest&...) {
    if constexpr (is_inplace<Result(Args...)>) {
      check_view_is_recorded(first);
    }
  }

  template <class... Rest>
  static void bump_version(Tensor& self, const Rest&...) {
    if (as_wrapper(self) != nullptr) {
      self.unsafeGetTensorImpl()->bump_version();
    }
  }
};

// Puts the kernel of `Op` where the dispatcher finds it; called with its first rule.
template <class Op>
void install_kernel(Coverage coverage = Coverage::Rule) {
  const c10::OperatorName name(Op::name, Op::overload_name);
  if (!claim(name, coverage)) {
    return;
  }
  const auto kernel = [] {
    return c10::KernelFunction::makeFromUnboxedFunction(TORCH_FN(Kernel<Op>::run));
  };
  register_kernel(name, kFrontKey, kernel());
  // A back kernel would switch off the decomposition of a composite operator at the autograd key.
  if (!traits_of<Op>().is_composite) {
    register_kernel(name, kBackKey, kernel());
  }
}

}  // namespace functx
