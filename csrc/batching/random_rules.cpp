// How a random operator draws for a whole batch. An operator belongs to a family by what its draws
// depend on; families differ in where the batch dimension goes.
#include <ATen/Context.h>

#include <mutex>
#include <unordered_map>

#include "batching/boxed_rules.h"
#include "batching/dims.h"
#include "batching/random.h"
#include "batching/rule.h"
#include "core/schema.h"

namespace functx {
namespace {

using torch::jit::Stack;

enum class Family : uint8_t {
  Size,         // no tensors, but a size: rand, randint
  Permutation,  // randperm
  Like,         // a new tensor with the shape of the first argument: rand_like
  Fill,         // overwrites its only tensor argument: normal_
  Pointwise,    // each element from the elements of the arguments in its place: bernoulli, poisson
  Dropout,      // Pointwise, and the input times a factor that does not depend on it
  Rows,         // each row of the result from one row of the argument: multinomial
  Loop          // all others, one call per example
};

const std::unordered_map<std::string_view, Family>& known_families() {
  static const std::unordered_map<std::string_view, Family> families{
      {"aten::randperm", Family::Permutation},
      {"aten::rand_like", Family::Like},
      {"aten::randn_like", Family::Like},
      {"aten::randint_like", Family::Like},
      {"aten::uniform", Family::Like},
      {"aten::normal_functional", Family::Like},
      {"aten::exponential", Family::Like},
      {"aten::cauchy", Family::Like},
      {"aten::geometric", Family::Like},
      {"aten::log_normal", Family::Like},
      {"aten::random", Family::Like},
      {"aten::bernoulli", Family::Pointwise},
      {"aten::bernoulli_", Family::Pointwise},
      {"aten::poisson", Family::Pointwise},
      {"aten::binomial", Family::Pointwise},
      {"aten::normal", Family::Pointwise},
      {"aten::_standard_gamma", Family::Pointwise},
      {"aten::native_dropout", Family::Dropout},
      {"aten::_fused_dropout", Family::Dropout},
      {"aten::_sample_dirichlet", Family::Rows},
      {"aten::multinomial", Family::Rows},
  };
  return families;
}

bool takes_tensors(const c10::FunctionSchema& schema) {
  return std::any_of(
      schema.arguments().begin(), schema.arguments().end(), [](const auto& argument) {
        const auto& type = *argument.type();
        return type.isSubtypeOf(*c10::OptionalType::create(c10::TensorType::get())) ||
               type.isSubtypeOf(*c10::ListType::ofTensors());
      });
}

bool has_argument(const c10::FunctionSchema& schema, const char* name) {
  return schema.argumentIndexWithName(name).has_value();
}

int64_t count_tensor_arguments(const Stack& arguments) {
  return std::count_if(arguments.begin(), arguments.end(),
                       [](const auto& argument) { return argument.isTensor(); });
}

Family family_of(const c10::OperatorHandle& op, const Stack& arguments) {
  const auto& schema = op.schema();
  const bool has_out = schema.is_mutable() && !is_written(schema.arguments().front());
  if (has_out) {
    return Family::Loop;
  }
  if (schema.is_mutable() && count_tensor_arguments(arguments) == 1) {
    return Family::Fill;
  }
  if (!takes_tensors(schema) && has_argument(schema, "size")) {
    return Family::Size;
  }
  const std::string_view overload = schema.overload_name();
  if (schema.name() == "aten::bernoulli" && overload == "p") {
    return Family::Like;
  }
  if (schema.name() == "aten::randint_like" && overload.starts_with("Tensor")) {
    return Family::Loop;
  }
  const auto found = known_families().find(schema.name());
  return found == known_families().end() ? Family::Loop : found->second;
}

// One call of a random operator under the vmap of `level`.
struct Draw {
  const c10::OperatorHandle& op;
  const LevelPtr& level;
  Stack arguments;

  const c10::FunctionSchema& schema() const { return op.schema(); }

  Batched batched(size_t position) const {
    return unwrap_batched(level, arguments[position].toTensor());
  }

  // The argument of this name, None if the overload has none.
  c10::IValue argument(const char* name) const {
    const auto position = schema().argumentIndexWithName(name);
    return position.has_value() ? arguments[*position] : c10::IValue();
  }
};

bool is_batched_at(const LevelPtr& level, const c10::IValue& value) {
  if (value.isList()) {
    const auto elements = value.toListRef();
    return std::any_of(elements.begin(), elements.end(),
                       [&](const auto& element) { return is_batched_at(level, element); });
  }
  return value.isTensor() && unwrap_batched(level, value.toTensor()).is_batched;
}

c10::IValue value_of(const LevelPtr& level, const c10::IValue& argument) {
  if (argument.isTensor()) {
    return unwrap_batched(level, argument.toTensor()).value;
  }
  if (argument.isTensorList() || argument.isOptionalTensorList()) {
    auto values = c10::impl::GenericList(argument.toList().elementType());
    for (const auto& element : argument.toListRef()) {
      values.push_back(value_of(level, element));
    }
    return values;
  }
  return argument;
}

Stack values_of(const Draw& draw) {
  Stack values;
  values.reserve(draw.arguments.size());
  for (const auto& argument : draw.arguments) {
    values.push_back(value_of(draw.level, argument));
  }
  return values;
}

// Wraps what the operator returned; an argument that was written to is returned itself.
Stack wrap_results(const Draw& draw, Stack results, bool is_batched) {
  for (size_t i = 0; i < results.size(); ++i) {
    if (const auto written = written_argument(draw.schema(), draw.schema().returns()[i])) {
      results[i] = draw.arguments[*written];
    } else if (results[i].isTensor()) {
      results[i] = make_batched(draw.level, {results[i].toTensor(), is_batched});
    }
  }
  return results;
}

Stack call_once(const Draw& draw, Stack values, bool is_batched) {
  draw.op.callBoxed(&values);
  return wrap_results(draw, std::move(values), is_batched);
}

// Channels-last formats speak of the dimensions of one example.
void forget_ranked_format(const Draw& draw, Stack& values) {
  const auto position = draw.schema().argumentIndexWithName("memory_format");
  if (position.has_value() && !values[*position].isNone()) {
    const auto format = values[*position].toMemoryFormat();
    if (format == at::MemoryFormat::ChannelsLast || format == at::MemoryFormat::ChannelsLast3d) {
      values[*position] = c10::IValue();
    }
  }
}

c10::SymIntArrayRef example_size(const Batched& x) {
  return x.value.sym_sizes().slice(x.is_batched ? 1 : 0);
}

// Memory for one example.
Tensor empty_example(const Batched& x) { return x.value.new_empty_symint(example_size(x)); }

// ---- randomness="different"

void check_written_are_batched(const Draw& draw) {
  for (size_t i = 0; i < draw.arguments.size(); ++i) {
    TORCH_CHECK(
        !is_written(draw.schema().arguments()[i]) || !draw.arguments[i].isTensor() ||
            draw.batched(i).is_batched,
        "functx.vmap: Cannot ask for different inplace randomness on an unbatched tensor: ",
        draw.op.operator_name(), " writes into ", draw.schema().arguments()[i].name(),
        ", which is the same for every example. Use an operator that returns a new tensor "
        "(torch.rand, torch.randn_like...), make the tensor from a batched tensor x, for example "
        "by x.new_empty(...), or pass randomness=\"same\".");
  }
}

// All tensors with a batch dimension, so that there is a draw for each example.
Stack spread(const Draw& draw) {
  Stack spread = draw.arguments;
  for (size_t i = 0; i < spread.size(); ++i) {
    if (spread[i].isTensor() && spread[i].toTensor().defined()) {
      spread[i] =
          make_batched(draw.level, {ensure_batched(draw.batched(i), draw.level->batch_size), true});
    }
  }
  return spread;
}

Stack call_with_size(const Draw& draw) {
  Stack values = values_of(draw);
  c10::IValue& size = values[*draw.schema().argumentIndexWithName("size")];
  auto physical = size.toSymIntVector();
  physical.insert(physical.begin(), c10::SymInt(draw.level->batch_size));
  size = c10::IValue(c10::SymIntArrayRef(physical));
  return call_once(draw, std::move(values), true);
}

// The order of random keys of 63 bits, which are as good as never equal.
Stack permute(const Draw& draw) {
  const auto dtype = draw.argument("dtype").toOptional<at::ScalarType>();
  const Tensor keys = ops::randint_low_generator::call(
      0, std::numeric_limits<int64_t>::max(),
      {c10::SymInt(draw.level->batch_size), draw.argument("n").toSymInt()},
      draw.argument("generator").toOptional<at::Generator>(), at::kLong,
      draw.argument("layout").toOptional<at::Layout>(),
      draw.argument("device").toOptional<at::Device>(),
      draw.argument("pin_memory").toOptional<bool>());
  const Tensor permutations = keys.argsort(int64_t{-1}).to(dtype.value_or(at::kLong));
  return {make_batched(draw.level, {permutations, true})};
}

Stack call_like(const Draw& draw) {
  Stack values = values_of(draw);
  values[0] = ensure_batched(draw.batched(0), draw.level->batch_size);
  forget_ranked_format(draw, values);
  return call_once(draw, std::move(values), true);
}

Stack call_rows(const Draw& draw) {
  const Batched rows = draw.batched(0);
  Stack values = values_of(draw);
  const Tensor batch = ensure_batched(rows, draw.level->batch_size);
  if (rows.logical_dim() == 1) {
    values[0] = batch;
    return call_once(draw, std::move(values), true);
  }
  TORCH_CHECK(rows.logical_dim() == 2, draw.schema().name(),
              ": expected one or two dimensions in each example, got ", rows.logical_dim());
  values[0] = batch.flatten(0, 1);
  draw.op.callBoxed(&values);
  values[0] = values[0].toTensor().unflatten(0, {draw.level->batch_size, rows.value.size(-2)});
  return wrap_results(draw, std::move(values), true);
}

Stack loop(const Draw& draw) {
  TORCH_CHECK_NOT_IMPLEMENTED(takes_tensors(draw.schema()),
                              "functx.vmap: ", draw.op.operator_name(),
                              " cannot draw for each example. Pass randomness=\"same\", or call it "
                              "outside of vmap and pass the result in.");
  Stack stack = spread(draw);
  loop_silently(draw.op, draw.level, &stack);
  return stack;
}

Stack draw_different(const Draw& draw) {
  check_written_are_batched(draw);
  switch (family_of(draw.op, draw.arguments)) {
    case Family::Size:
      return call_with_size(draw);
    case Family::Permutation:
      return permute(draw);
    case Family::Like:
      return call_like(draw);
    case Family::Fill:
      return call_once(draw, values_of(draw), true);
    case Family::Pointwise:
    case Family::Dropout: {
      Stack stack = spread(draw);
      batch_pointwise(draw.op, draw.level, &stack);
      return stack;
    }
    case Family::Rows:
      return call_rows(draw);
    case Family::Loop:
      return loop(draw);
  }
  return {};
}

// ---- randomness="same", for arguments that differ between examples

Stack call_like_one(const Draw& draw) {
  Stack values = values_of(draw);
  values[0] = empty_example(draw.batched(0));
  return call_once(draw, std::move(values), false);
}

Stack fill_one(const Draw& draw) {
  Stack values = values_of(draw);
  Tensor batch = values[0].toTensor();
  values[0] = empty_example(draw.batched(0));
  draw.op.callBoxed(&values);
  batch.copy_(values[0].toTensor());
  return {draw.arguments[0]};
}

// One mask for all examples.
Stack drop_the_same(const Draw& draw) {
  const Batched input = draw.batched(0);
  Stack values = values_of(draw);
  values[0] = input.value.new_ones_symint(example_size(input));
  draw.op.callBoxed(&values);
  return {make_batched(draw.level, {input.value.mul(values[0].toTensor()), true}),
          make_batched(draw.level, {values[1].toTensor(), false})};
}

// Undefined where there is nothing to repeat.
at::Generator generator_of(const Draw& draw) {
  for (const auto& argument : draw.arguments) {
    if (argument.isGenerator()) {
      return argument.toGenerator();
    }
  }
  for (const auto& argument : draw.arguments) {
    if (argument.isTensor() && argument.toTensor().defined()) {
      const auto device = argument.toTensor().device();
      return device.is_meta() ? at::Generator() : at::globalContext().defaultGenerator(device);
    }
  }
  return {};
}

// Each example draws from the same state of the generator: as a loop does that seeds it anew.
Stack loop_with_the_same_state(const Draw& draw) {
  at::Generator generator = generator_of(draw);
  Tensor state;
  if (generator.defined()) {
    const std::lock_guard<std::mutex> lock(generator.mutex());
    state = generator.get_state();
  }
  const auto rewind = [&] {
    if (generator.defined()) {
      const std::lock_guard<std::mutex> lock(generator.mutex());
      generator.set_state(state);
    }
  };
  Stack stack = draw.arguments;
  loop_with(rewind, draw.op, draw.level, &stack);
  return stack;
}

Stack draw_same(const Draw& draw) {
  switch (family_of(draw.op, draw.arguments)) {
    case Family::Like:
      return call_like_one(draw);
    case Family::Fill:
      return fill_one(draw);
    case Family::Dropout:
      return drop_the_same(draw);
    default:
      return loop_with_the_same_state(draw);
  }
}

}  // namespace

bool draws(const c10::OperatorHandle& op, const Stack& stack) {
  const auto& schema = op.schema();
  const auto arguments = torch::jit::last(stack, schema.arguments().size());
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& name = schema.arguments()[i].name();
    const bool is_share = name == "dropout_p" || name == "dropout";
    const bool is_switch = name == "train" || name == "training";
    if ((is_share && arguments[i].isDouble() && arguments[i].toDouble() == 0) ||
        (is_switch && arguments[i].isBool() && !arguments[i].toBool())) {
      return false;
    }
  }
  return true;
}

void check_may_draw(const c10::OperatorHandle& op, const Level& level) {
  TORCH_CHECK(
      level.randomness != Randomness::Error,
      "functx.vmap: called random operation while in randomness error mode: ", op.operator_name(),
      " draws random numbers, and randomness=\"error\", the default, does not allow that. "
      "Pass randomness=\"different\" to vmap (or jacfwd) for a draw per example or "
      "randomness=\"same\" for one that all examples share, or draw outside of it.");
}

void draw_for_batch(const c10::OperatorHandle& op, const LevelPtr& level, Stack* stack) {
  const bool is_random = draws(op, *stack);
  if (is_random) {
    check_may_draw(op, *level);
  }
  const bool is_same = is_random && level->randomness == Randomness::Same;
  const Draw draw{op, level, torch::jit::pop(*stack, op.schema().arguments().size())};
  const bool any_batched =
      std::any_of(draw.arguments.begin(), draw.arguments.end(),
                  [&](const auto& argument) { return is_batched_at(level, argument); });
  Stack results;
  if (!any_batched && (is_same || !is_random)) {
    results = call_once(draw, values_of(draw), false);
  } else {
    results = is_same ? draw_same(draw) : draw_different(draw);
  }
  stack->insert(stack->end(), results.begin(), results.end());
}

}  // namespace functx
