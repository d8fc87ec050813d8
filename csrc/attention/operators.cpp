#include "attention/operators.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "attention/blocks.h"
#include "batching/dims.h"
#include "batching/rule.h"
#include "forward_ad/rule.h"

namespace functx {
namespace {

using Optionals = c10::List<std::optional<Tensor>>;

Optionals pack(const AttentionTensors& tensors) {
  Optionals packed;
  tensors.each([&](const Tensor& tensor) {
    packed.push_back(tensor.defined() ? std::make_optional(tensor) : std::nullopt);
  });
  return packed;
}

std::vector<Tensor> listed(const Optionals& packed) {
  std::vector<Tensor> tensors;
  for (const std::optional<Tensor> tensor : packed) {
    tensors.push_back(tensor.value_or(Tensor()));
  }
  return tensors;
}

// --- the operators

struct Operator {
  using schema = std::vector<Tensor>(const Optionals& primals, const Optionals& tangents,
                                     std::optional<int64_t> diagonal, double scale);
  static constexpr const char* overload_name = "";
};

template <class Op>
struct Callable : Operator {
  static std::vector<Tensor> call(const Optionals& primals, const Optionals& tangents,
                                  std::optional<int64_t> diagonal, double scale) {
    return handle().call(primals, tangents, diagonal, scale);
  }
  static std::vector<Tensor> redispatch(c10::DispatchKeySet keys, const Optionals& primals,
                                        const Optionals& tangents, std::optional<int64_t> diagonal,
                                        double scale) {
    return handle().redispatch(keys, primals, tangents, diagonal, scale);
  }

 private:
  static const c10::TypedOperatorHandle<schema>& handle() {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow(Op::name, Op::overload_name)
                               .template typed<schema>();
    return op;
  }
};

struct Jvp : Callable<Jvp> {
  static constexpr const char* name = "functx::attention_jvp";
  static constexpr AttentionFormula formula = blockwise_jvp;
  static std::vector<Tensor> like(const AttentionTensors& x) { return {x.query, x.logsumexp}; }
};

struct Vjp : Callable<Vjp> {
  static constexpr const char* name = "functx::attention_vjp";
  static constexpr AttentionFormula formula = blockwise_vjp;
  static std::vector<Tensor> like(const AttentionTensors& x) { return {x.query, x.key, x.value}; }
};

struct VjpJvp : Callable<VjpJvp> {
  static constexpr const char* name = "functx::attention_vjp_jvp";
  static constexpr AttentionFormula formula = blockwise_vjp_jvp;
  static std::vector<Tensor> like(const AttentionTensors& x) { return {x.query, x.key, x.value}; }
};

// The dispatcher takes no undefined results.
template <class Op>
std::vector<Tensor> computed(const AttentionTensors& x, const AttentionTensors& t,
                             const Scoring& scoring) {
  auto results = Op::formula(x, t, scoring);
  const auto like = Op::like(x);
  for (size_t i = 0; i < results.size(); ++i) {
    results[i] = results[i].defined() ? results[i] : at::zeros_like(like[i]);
  }
  return results;
}

template <class Op>
std::vector<Tensor> compute(const Optionals& primals, const Optionals& tangents,
                            std::optional<int64_t> diagonal, double scale) {
  return computed<Op>(AttentionTensors::of(listed(primals)), AttentionTensors::of(listed(tangents)),
                      {diagonal, scale});
}

// --- reverse mode

// A wrapper of torch.func's, whose transforms have no rule for an operator of ours and may have a
// tape.
bool is_torch_func(const Tensor& tensor) {
  constexpr c10::DispatchKeySet keys{c10::DispatchKey::FuncTorchGradWrapper,
                                     c10::DispatchKey::FuncTorchBatched};
  return tensor.defined() && tensor.key_set().has_any(keys);
}

// Whether a tape in the stratum of `tensor`, or in one below, records what is done with it.
bool is_recorded_within(const Tensor& tensor) {
  if (!tensor.defined()) {
    return false;
  }
  const Wrapper* wrapper = as_wrapper(tensor);
  if (wrapper == nullptr) {
    return is_recorded(tensor) || is_torch_func(tensor);
  }
  const auto values = wrapper->values();
  return is_recorded(tensor) || std::any_of(values.begin(), values.end(), is_recorded_within);
}

// What a tape can record: ordinary operators on the whole score matrix.
template <class Op>
std::vector<Tensor> recorded(const AttentionTensors& x, const AttentionTensors& t,
                             const Scoring& scoring) {
  const AttentionTensors primals = written_out(x, scoring);
  AttentionTensors tangents = t;
  if constexpr (std::is_same_v<Op, VjpJvp>) {
    const auto results = blockwise_jvp(primals, t, scoring);
    tangents.output = results[0];
    tangents.logsumexp = results[1];
  }
  return computed<Op>(primals, tangents, scoring);
}

template <class Op>
std::vector<Tensor> call(const AttentionTensors& x, const AttentionTensors& t,
                         const Scoring& scoring) {
  return x.any(is_torch_func) || t.any(is_torch_func)
             ? recorded<Op>(x, t, scoring)
             : Op::call(pack(x), pack(t), scoring.diagonal, scoring.scale);
}

// Gradients of the primals and tangents of a formula.
struct Gradients {
  AttentionTensors primals;
  AttentionTensors tangents;
};

// Whether autograd asks for any of them.
struct Wanted {
  bool primals;
  bool tangents;
};

// Those that there are gradients of. Output and logsumexp are functions of the others.
std::vector<Tensor> variables_of(const AttentionTensors& x, const AttentionTensors& t) {
  return {x.query, x.key, x.value, x.grad, t.query, t.key, t.value};
}
constexpr size_t kPrimalVariables = 4;

AttentionTensors of_inputs(const std::vector<Tensor>& each) {
  return {each[0], each[1], each[2], {}, {}, {}, {}};
}

AttentionTensors with_grad(AttentionTensors x, const Tensor& grad) {
  x.grad = grad;
  return x;
}

// The tangent of the output is linear in the tangents, so their gradients are those of attention;
// and the gradients of the primals are the tangents of these. `results` are the formula's.
Gradients differentiate(const Jvp&, const AttentionTensors& x, AttentionTensors t,
                        const Scoring& scoring, const std::vector<Tensor>& results,
                        const std::vector<Tensor>& grads, Wanted wanted) {
  AttentionTensors at = with_grad(x, grads[0]);
  at.output = x.output.defined() ? x.output : results[2];
  Gradients gradients;
  if (wanted.tangents) {
    gradients.tangents = of_inputs(attention_vjp(at, scoring));
  }
  if (wanted.primals) {
    t.output = results[0];
    t.logsumexp = results[1];
    gradients.primals = of_inputs(attention_vjp_jvp(at, t, scoring));
  }
  return gradients;
}

// The gradients are symmetric: their derivative in a direction is its own transpose.
Gradients differentiate(const Vjp&, const AttentionTensors& x, const AttentionTensors&,
                        const Scoring& scoring, const std::vector<Tensor>&,
                        const std::vector<Tensor>& grads, Wanted) {
  AttentionTensors direction = of_inputs(grads);
  const auto moved = attention_jvp(x, direction, scoring);
  direction.output = moved[0];
  direction.logsumexp = moved[1];
  return {with_grad(of_inputs(attention_vjp_jvp(x, direction, scoring)), moved[0]), {}};
}

template <class Op>
struct Recorded : torch::autograd::Function<Recorded<Op>> {
  using List = torch::autograd::variable_list;
  using Context = torch::autograd::AutogradContext;

  // `variables` are what autograd has to know of.
  static List forward(Context* context, at::TensorList variables, const AttentionTensors& x,
                      const AttentionTensors& t, const Scoring& scoring) {
    static_cast<void>(variables);
    // The tape records this as a whole, but those in strata below record what it is made of.
    const c10::AutoGradMode for_strata_below(true);
    const at::AutoDispatchBelowADInplaceOrView below;
    List results = call<Op>(x, t, scoring);
    if constexpr (std::is_same_v<Op, Jvp>) {
      // As PyTorch has it, no gradient flows through the logsumexp.
      context->mark_non_differentiable({results.begin() + 1, results.end()});
    }
    List saved = x.all();
    for (const auto& tensors : {t.all(), results}) {
      saved.insert(saved.end(), tensors.begin(), tensors.end());
    }
    context->save_for_backward(std::move(saved));
    context->saved_data["scale"] = scoring.scale;
    context->saved_data["diagonal"] = scoring.diagonal;
    return results;
  }

  static List backward(Context* context, const List& grads) {
    constexpr size_t count = AttentionTensors::kCount;
    const List saved = context->get_saved_variables();
    const auto x = AttentionTensors::of({saved.begin(), saved.begin() + count});
    const auto t = AttentionTensors::of({saved.begin() + count, saved.begin() + 2 * count});
    const List results{saved.begin() + 2 * count, saved.end()};
    const Scoring scoring{context->saved_data["diagonal"].toOptional<int64_t>(),
                          context->saved_data["scale"].toDouble()};
    const List variables = variables_of(x, t);
    Wanted wanted{false, false};
    size_t position = 0;
    for (size_t i = 0; i < variables.size(); ++i) {
      const bool is_wanted = variables[i].defined() && context->needs_input_grad(position++);
      (i < kPrimalVariables ? wanted.primals : wanted.tangents) |= is_wanted;
    }
    const auto gradients = differentiate(Op{}, x, t, scoring, results, grads, wanted);
    const List each = variables_of(gradients.primals, gradients.tangents);
    List of_variables;
    for (size_t i = 0; i < variables.size(); ++i) {
      if (variables[i].defined()) {
        // One primal may have served several tangents.
        of_variables.push_back(
            each[i].defined() ? each[i].sum_to_size_symint(variables[i].sym_sizes()) : Tensor());
      }
    }
    of_variables.resize(of_variables.size() + 3);  // of the other arguments of forward
    return of_variables;
  }
};

template <class Op>
std::vector<Tensor> record(const Optionals& primals, const Optionals& tangents,
                           std::optional<int64_t> diagonal, double scale) {
  const auto x = AttentionTensors::of(listed(primals));
  const auto t = AttentionTensors::of(listed(tangents));
  const auto needs_tape = [](const Tensor& tensor) { return is_recorded(tensor); };
  if (!x.any(needs_tape) && !t.any(needs_tape)) {
    const at::AutoDispatchBelowADInplaceOrView below;
    return Op::call(primals, tangents, diagonal, scale);
  }
  const Scoring scoring{diagonal, scale};
  if constexpr (!std::is_same_v<Op, VjpJvp>) {
    if (!is_recorded(x.mask, t.mask)) {
      auto variables = variables_of(x, t);
      std::erase_if(variables, [](const Tensor& tensor) { return !tensor.defined(); });
      return Recorded<Op>::apply(at::TensorList(variables), x, t, scoring);
    }
  }
  return recorded<Op>(x, t, scoring);
}

// --- vmap

// [B, ..., N, H, L, E] to [..., B * N, H, L, E]; a mask whose N is one has that of the others.
Tensor fold(const Batched& x, int64_t batch_size, const c10::SymInt& items) {
  if (!x.defined()) {
    return {};
  }
  const int64_t rank = x.logical_dim();
  const Tensor& value = x.value;
  const Tensor inside = x.is_batched ? value.movedim(0, rank - 4) : value.unsqueeze(rank - 4);
  auto sizes = inside.sym_sizes().vec();
  sizes[rank - 4] = batch_size;
  sizes[rank - 3] = items;
  return inside.expand_symint(sizes).flatten(rank - 4, rank - 3);
}

Tensor unfold(const Tensor& result, int64_t batch_size) {
  const int64_t rank = result.dim();
  return result.unflatten(rank - 4, {batch_size, each_of(result.size(rank - 4), batch_size)})
      .movedim(rank - 4, 0);
}

AttentionTensors mapped(const std::vector<Batched>& tensors, const auto& function) {
  std::vector<Tensor> values;
  std::transform(tensors.begin(), tensors.end(), std::back_inserter(values), function);
  return AttentionTensors::of(values);
}

// Examples that share the primals are several tangents, or gradients, for the same probabilities:
// their dimension goes in front of the others. All others join the items.
template <class Op>
std::vector<Tensor> batch(const LevelPtr& level, const Optionals& primals,
                          const Optionals& tangents, std::optional<int64_t> diagonal,
                          double scale) {
  const auto x = detail::unpack(level, primals);
  const auto t = detail::unpack(level, tangents);
  const Scoring scoring{diagonal, scale};
  const int64_t batch_size = level->batch_size;
  const auto batched = [&](const Tensor& result, bool is_batched) {
    return make_batched(level, {result, is_batched});
  };
  const auto is_batched = [](const Batched& each) { return each.is_batched; };
  std::vector<Tensor> results;
  // The last one is the gradient.
  if (std::any_of(x.begin(), x.end() - 1, is_batched)) {
    const Batched& query = x.front();
    const auto items = query.value.sym_size(query.value.dim() - 4);
    const auto folded = [&](const Batched& each) { return fold(each, batch_size, items); };
    for (const Tensor& result : call<Op>(mapped(x, folded), mapped(t, folded), scoring)) {
      results.push_back(batched(unfold(result, batch_size), true));
    }
    return results;
  }
  int64_t rank = 0;
  for (const auto& each : {x, t}) {
    for (const Batched& tensor : each) {
      rank = tensor.defined() ? std::max(rank, tensor.logical_dim()) : rank;
    }
  }
  const auto aligned = [&](const Batched& each) {
    return each.is_batched ? align_rank(each, rank) : each.value;
  };
  for (Tensor result : call<Op>(mapped(x, aligned), mapped(t, aligned), scoring)) {
    const bool has_batch = result.dim() > rank;
    if (has_batch && result.size(0) != batch_size) {
      auto sizes = result.sym_sizes().vec();
      sizes[0] = batch_size;
      result = result.expand_symint(sizes);
    }
    results.push_back(batched(result, has_batch));
  }
  return results;
}

// --- jvp

// Tangents of tangents: the formula again, in dual numbers. Their own tape has recorded it as a
// whole; one below sees the operators that it is made of.
template <class Op>
std::vector<Tensor> differentiate_forward(const LevelPtr& level, const Optionals& primals,
                                          const Optionals& tangents,
                                          std::optional<int64_t> diagonal, double scale) {
  const auto without_tape = [&](const Optionals& packed) {
    std::vector<Tensor> tensors = listed(packed);
    for (Tensor& tensor : tensors) {
      tensor = untaped(level, tensor);
    }
    return AttentionTensors::of(tensors);
  };
  const AttentionTensors x = without_tape(primals), t = without_tape(tangents);
  const bool is_seen = x.any(is_recorded_within) || t.any(is_recorded_within);
  return (is_seen ? recorded<Op> : computed<Op>)(x, t, {diagonal, scale});
}

// --- registration

TORCH_LIBRARY(functx, m) {
  constexpr const char* arguments =
      "(Tensor?[] primals, Tensor?[] tangents, int? diagonal, float scale) -> Tensor[]";
  for (const std::string name : {"attention_jvp", "attention_vjp", "attention_vjp_jvp"}) {
    m.def((name + arguments).c_str());
  }
}

TORCH_LIBRARY_IMPL(functx, CompositeExplicitAutograd, m) {
  m.impl(Jvp::name, compute<Jvp>);
  m.impl(Vjp::name, compute<Vjp>);
  m.impl(VjpJvp::name, compute<VjpJvp>);
}

TORCH_LIBRARY_IMPL(functx, Autograd, m) {
  m.impl(Jvp::name, record<Jvp>);
  m.impl(Vjp::name, record<Vjp>);
  m.impl(VjpJvp::name, record<VjpJvp>);
}

template <class... Ops>
void transform() {
  ((Rules<Ops>::batching = batch<Ops>, Rules<Ops>::dual = differentiate_forward<Ops>,
    install_kernel<Ops>()),
   ...);
}

// After the operators are defined, so in the same file.
FUNCTX_RULES(attention_derivatives) { transform<Jvp, Vjp, VjpJvp>(); }

// --- the choice

// Whether something has to deal with the formula as a whole; else its operators are called at once.
bool is_special(const Tensor& tensor) {
  return tensor.defined() &&
         (as_wrapper(tensor) != nullptr || is_recorded(tensor) || is_torch_func(tensor));
}

// A graph that is traced has one node then, and not some for every block.
bool has_blocks(const AttentionTensors& x) {
  constexpr int64_t kScoresOfOne = 1 << 16;
  return size_of(x.query, -2) * size_of(x.key, -2) > kScoresOfOne;
}

template <class Op>
std::vector<Tensor> choose(const AttentionTensors& x, const AttentionTensors& t,
                           const Scoring& scoring) {
  return has_blocks(x) || x.any(is_special) || t.any(is_special) ? call<Op>(x, t, scoring)
                                                                 : Op::formula(x, t, scoring);
}

}  // namespace

std::vector<Tensor> attention_jvp(const AttentionTensors& x, const AttentionTensors& t,
                                  const Scoring& scoring) {
  return choose<Jvp>(x, t, scoring);
}

std::vector<Tensor> attention_vjp(const AttentionTensors& x, const Scoring& scoring) {
  return choose<Vjp>(x, {}, scoring);
}

std::vector<Tensor> attention_vjp_jvp(const AttentionTensors& x, const AttentionTensors& t,
                                      const Scoring& scoring) {
  return choose<VjpJvp>(x, t, scoring);
}

std::vector<Tensor> attention_mask_vjp_jvp(const AttentionTensors& x, const AttentionTensors& t,
                                           const Scoring& scoring) {
  AttentionTensors primals = written_out(x, scoring);
  AttentionTensors tangents = t;
  const auto results = blockwise_jvp(primals, t, scoring);
  tangents.output = results[0];
  tangents.logsumexp = results[1];
  return mask_vjp_jvp(primals, tangents, scoring);
}

}  // namespace functx
