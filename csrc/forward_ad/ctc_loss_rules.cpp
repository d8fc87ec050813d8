// Connectionist temporal classification: the gradient that PyTorch's kernel computes holds the
// slopes of each sequence's loss. It is written out as well, since that kernel has no derivative.
#include <ATen/ops/arange.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <limits>

#include "core/coverage.h"
#include "core/operands.h"
#include "core/torch_func.h"
#include "forward_ad/conform.h"
#include "forward_ad/inplace.h"
#include "forward_ad/rule.h"
#include "reverse_ad/recordable.h"

namespace functx {
namespace {

// Stands for the logarithm of zero, where infinity would leave differences undefined.
constexpr double impossible = -1e30;

Tensor log_sum(std::vector<Tensor> terms) { return at::stack(terms).logsumexp(0); }

Tensor only_where(const Tensor& condition, const Tensor& scores) {
  return scores.masked_fill(condition.logical_not(), impossible);
}

// What reads targets [N, S]: at each step it is in one of the 2 * S + 1 states of a target, which
// are its labels with a blank before, between and after them; it stays there, goes on to the next
// state, or leaves out a blank between labels that differ. Scores of states are [N, 2 * S + 1].
class Reader {
 public:
  Reader(const Tensor& targets, const Tensor& lengths, int64_t blank) {
    const Tensor blanks = targets.new_full_symint(targets.sym_sizes(), blank);
    labels = at::stack({blanks, targets}, -1).flatten(1);
    labels = at::constant_pad_nd(labels, {0, 1}, blank);
    const Tensor before_last = at::constant_pad_nd(labels, {2, -2}, blank);
    may_leap = labels.ne(blank).logical_and(labels.ne(before_last));
    const Tensor place = at::arange(labels.size(1), labels.options());
    const Tensor end = lengths.unsqueeze(-1).mul(2);
    is_inside = place.le(end);
    is_first = is_inside.logical_and(place.lt(2));
    is_last = is_inside.logical_and(place.ge(end.sub(1)));
  }

  // The scores of all ways from a state to the one it is in after a step, and the other way round.
  Tensor forward(const Tensor& scores) const {
    return log_sum({scores, moved(scores, 1), only_where(may_leap, moved(scores, 2))});
  }
  Tensor backward(const Tensor& scores) const {
    return log_sum({scores, moved(scores, -1), moved(only_where(may_leap, scores), -2)});
  }

  Tensor labels, is_inside, is_first, is_last;

 private:
  static Tensor moved(const Tensor& scores, int64_t by) {
    return at::constant_pad_nd(scores, {by, -by}, impossible);
  }

  Tensor may_leap;
};

struct Sequences {
  Tensor targets;         // [N, S]
  Tensor input_lengths;   // [N]
  Tensor target_lengths;  // [N]
  int64_t blank;
};

// The probability of each class at each step [T, N, C], given the target.
Tensor posterior(const Tensor& log_probs, const Sequences& given) {
  const Reader reader(given.targets, given.target_lengths, given.blank);
  const int64_t steps = log_probs.size(0);
  const Tensor classes =
      reader.labels.unsqueeze(0).expand({steps, log_probs.size(1), reader.labels.size(1)});
  const Tensor scores = log_probs.gather(2, classes).clamp_min(impossible);

  std::vector<Tensor> ahead{only_where(reader.is_first, scores.select(0, 0))};
  for (int64_t t = 1; t < steps; ++t) {
    const Tensor arriving = reader.forward(ahead.back()).add(scores.select(0, t));
    ahead.push_back(only_where(reader.is_inside, arriving));
  }
  const Tensor end = only_where(reader.is_last, at::zeros_like(ahead.front()));
  const Tensor last_step = given.input_lengths.sub(1).unsqueeze(-1);
  std::vector<Tensor> behind{end};
  for (int64_t t = steps - 1; t-- > 0;) {
    const Tensor leaving = reader.backward(behind.back().add(scores.select(0, t + 1)));
    behind.push_back(at::where(last_step.le(t), end, leaving));
  }
  std::reverse(behind.begin(), behind.end());

  const Tensor paths = at::stack(ahead).add(at::stack(behind));
  const Tensor shares = paths.sub(paths.logsumexp(2, /*keepdim=*/true)).exp();
  return at::zeros_like(log_probs).scatter_add(2, classes, shares);
}

// The gradient [T, N, C]. That of the softmax that the logarithms of probabilities come from is
// part of it, as in PyTorch's kernel.
Tensor gradient(const Tensor& grad, const Tensor& log_probs, const Sequences& given,
                const Tensor& loss, bool zero_infinity) {
  if (log_probs.size(0) == 0) {
    return at::zeros_like(log_probs);
  }
  const Tensor slopes = log_probs.exp().sub(posterior(log_probs, given));
  const Tensor step = at::arange(log_probs.size(0), given.input_lengths.options()).view({-1, 1, 1});
  const Tensor beyond = step.ge(given.input_lengths.unsqueeze(-1));
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  return slopes.mul(grad.unsqueeze(-1))
      .masked_fill(loss.isinf().unsqueeze(-1), zero_infinity ? 0.0 : nan)
      .masked_fill(beyond, 0);
}

// ---- the arguments of the operators, with lengths as lists or as tensors ----

at::IntArrayRef primal_lengths(at::IntArrayRef lengths) { return lengths; }
Tensor primal_lengths(const Dual& lengths) { return lengths.primal; }

Tensor as_tensor(at::IntArrayRef lengths, const Tensor& like) {
  return at::tensor(lengths, at::kLong).to(like.device());
}
Tensor as_tensor(const Tensor& lengths, const Tensor& like) {
  return lengths.to(like.device(), at::kLong).reshape(-1);
}

// Of the longest target, or a bound where that is not one number.
int64_t padded_size(const Tensor& targets, const Tensor& lengths) {
  if (as_wrapper(lengths) != nullptr || lengths.is_meta()) {
    return targets.size(0);
  }
  return lengths.numel() == 0 ? 0 : lengths.max().item<int64_t>();
}

// [N, S], S > 0, from that or from targets that lie one behind the other. What is beyond the length
// of a target does not matter.
Tensor padded_targets(const Tensor& targets, const Tensor& lengths) {
  const Tensor all = targets.to(at::kLong);
  if (targets.dim() > 1) {
    return targets.size(1) > 0 ? all : all.new_zeros({all.size(0), 1});
  }
  const Tensor place = at::arange(std::max<int64_t>(padded_size(all, lengths), 1), all.options());
  const Tensor places = lengths.cumsum(0).sub(lengths).unsqueeze(-1).add(place);
  const Tensor ended = at::constant_pad_nd(all, {0, 1}, 0);
  return ended.gather(0, places.clamp_max(all.size(0)).flatten()).view_as(places);
}

template <class Lengths>
Sequences sequences(const Tensor& log_probs, const Tensor& targets, const Lengths& input_lengths,
                    const Lengths& target_lengths, int64_t blank) {
  const Tensor lengths = as_tensor(target_lengths, log_probs);
  return {padded_targets(targets.to(log_probs.device()), lengths),
          as_tensor(input_lengths, log_probs), lengths, blank};
}

// `Lengths` are lists or duals.
template <class Op, class Backward, class Lengths>
std::tuple<Dual, Tensor> ctc_loss(const Dual& log_probs, const Dual& targets,
                                  const Lengths& input_lengths, const Lengths& target_lengths,
                                  int64_t blank, bool zero_infinity) {
  const auto inputs = primal_lengths(input_lengths), outputs = primal_lengths(target_lengths);
  const Tensor& scores = log_probs.primal;
  auto [loss, log_alpha] = Op::call(scores, targets.primal, inputs, outputs, blank, zero_infinity);
  const Tensor ones = loss.new_ones_symint(loss.sym_sizes());
  const Tensor slopes =
      detail::is_recorded_below(log_probs)
          ? gradient(ones, scores, sequences(scores, targets.primal, inputs, outputs, blank), loss,
                     zero_infinity)
          : Backward::call(ones, scores, targets.primal, inputs, outputs, loss, log_alpha, blank,
                           zero_infinity);
  Tensor tangent = slopes.mul(log_probs.tangent).sum(at::IntArrayRef{0, 2});
  return {conform(std::move(tangent), std::move(loss)), std::move(log_alpha)};
}

// Of duals that a tape of this level does not see. Loss and log_alpha are functions of the rest.
template <class Lengths>
Tensor ctc_loss_backward(const LevelPtr& level, const Tensor& grad, const Tensor& log_probs,
                         const Tensor& targets, Lengths input_lengths, Lengths target_lengths,
                         const Tensor& loss, const Tensor&, int64_t blank, bool zero_infinity) {
  const auto dual = [&](const Tensor& x) { return make_dual(level, unwrap_dual(level, x)); };
  const auto primal = [&](const auto& x) {
    if constexpr (std::is_same_v<Lengths, at::IntArrayRef>) {
      return x;
    } else {
      return unwrap_dual(level, x).primal;
    }
  };
  const Sequences given =
      sequences(unwrap_dual(level, log_probs).primal, unwrap_dual(level, targets).primal,
                primal(input_lengths), primal(target_lengths), blank);
  return gradient(dual(grad), dual(log_probs), given, unwrap_dual(level, loss).primal,
                  zero_infinity);
}

template <class Lengths>
Tensor recordable_gradient(const Tensor& grad, const Tensor& log_probs, const Tensor& targets,
                           Lengths input_lengths, Lengths target_lengths, const Tensor& loss,
                           const Tensor&, int64_t blank, bool zero_infinity) {
  return gradient(grad, log_probs,
                  sequences(log_probs, targets, input_lengths, target_lengths, blank), loss,
                  zero_infinity);
}

// ---- the composition that calls these ----

// It fills a tensor with the lengths of targets through its memory, which a dual does not have:
// with lengths in tensors from the start it has no such step, and for plain tensors it shall make
// none.
template <class Op, class Signature = typename Op::schema>
struct Composite;

template <class Op, class... Args>
struct Composite<Op, Tensor(Args...)> {
  static Tensor run(c10::DispatchKeySet keys, Args... args) {
    const Operands operands(args...);
    if (operands.top() == nullptr && goes_to_kernel(keys)) {
      const HideFrom levels;
      return Op::redispatch(keys.remove(kFrontKey), std::forward<Args>(args)...);
    }
    if constexpr (std::is_same_v<Op, ops::ctc_loss_IntList>) {
      if (operands.top() != nullptr && !yields_to_torch_func(operands, keys)) {
        return with_tensors(args...);
      }
    }
    static const auto decompose = c10::BoxedKernel::makeFromFunction<&boxed_kernel>();
    return c10::impl::BoxedKernelWrapper<Tensor(Args...)>::call(decompose, traits_of<Op>().handle,
                                                                keys, std::forward<Args>(args)...);
  }

 private:
  static Tensor with_tensors(const Tensor& log_probs, const Tensor& targets,
                             at::IntArrayRef input_lengths, at::IntArrayRef target_lengths,
                             int64_t blank, int64_t reduction, bool zero_infinity) {
    return ops::ctc_loss_Tensor::call(log_probs, targets, at::tensor(input_lengths, at::kLong),
                                      at::tensor(target_lengths, at::kLong), blank, reduction,
                                      zero_infinity);
  }
};

template <class Op>
void composite() {
  const c10::OperatorName name(Op::name, Op::overload_name);
  claim(name, Coverage::Decomposition);
  register_kernel(name, kFrontKey,
                  c10::KernelFunction::makeFromUnboxedFunction(TORCH_FN(Composite<Op>::run)));
}

}  // namespace

FUNCTX_RULES(jvp_ctc_loss) {
  dual_rule<ops::_ctc_loss, ctc_loss<ops::_ctc_loss, ops::_ctc_loss_backward, at::IntArrayRef>>();
  dual_rule<ops::_ctc_loss_Tensor,
            ctc_loss<ops::_ctc_loss_Tensor, ops::_ctc_loss_backward_Tensor, Dual>>();
  Rules<ops::_ctc_loss_backward>::dual = &ctc_loss_backward<at::IntArrayRef>;
  install_kernel<ops::_ctc_loss_backward>();
  Rules<ops::_ctc_loss_backward_Tensor>::dual = &ctc_loss_backward<const Tensor&>;
  install_kernel<ops::_ctc_loss_backward_Tensor>();
}

FUNCTX_RULES(gradients_of_ctc_loss) {
  recordable<ops::_ctc_loss_backward, recordable_gradient<at::IntArrayRef>>();
  recordable<ops::_ctc_loss_backward_Tensor, recordable_gradient<const Tensor&>>();
}

FUNCTX_RULES(ctc_loss_composites) {
  composite<ops::ctc_loss_IntList>();
  composite<ops::ctc_loss_Tensor>();
}

}  // namespace functx
