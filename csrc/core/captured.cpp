#include "core/captured.h"

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "core/level.h"
#include "core/rule_scope.h"
#include "core/schema.h"
#include "core/torch_func.h"

namespace functx {
namespace {

struct Birth {
  const void* object;
  // What the next level would be called: those from this id on were entered later.
  int64_t next_level;
};

// So many are kept as they come, at the cost of an assignment each.
constexpr size_t max_recent = 1 << 14;
// So many are looked through before it pays to sort them in.
constexpr size_t max_scanned = 32;

ObjectOf find_object = nullptr;
HasArgument has_argument = nullptr;
thread_local int64_t noting = 0;
thread_local std::vector<Birth> recent;
// Memory is used again: for each address, the birth of the object that is there now.
thread_local std::unordered_map<const void*, int64_t> known;

void sort_in_recent() {
  for (const Birth& birth : recent) {
    known[birth.object] = birth.next_level;
  }
  recent.clear();
}

// What the next level was when `object` was made, if it was noted.
std::optional<int64_t> birth_of(const void* object) {
  const auto end = recent.rbegin() + static_cast<ptrdiff_t>(std::min(recent.size(), max_scanned));
  const auto found = std::find_if(recent.rbegin(), end,
                                  [&](const Birth& birth) { return birth.object == object; });
  if (found != end) {
    return found->next_level;
  }
  sort_in_recent();
  const auto place = known.find(object);
  return place == known.end() ? std::nullopt : std::make_optional(place->second);
}

// Autograd records no write into others.
bool is_differentiable(const Tensor& tensor) {
  return c10::isFloatingType(tensor.scalar_type()) || c10::isComplexType(tensor.scalar_type());
}

// Whether the function of `level` has made the tensor that is `object` to Python.
bool is_own(const Level& level, const void* object) {
  const auto birth = birth_of(object);
  return birth && *birth > level.id;
}

}  // namespace

void set_view_of_python(ObjectOf object_of, HasArgument argument_of) {
  find_object = object_of;
  has_argument = argument_of;
}

void begin_noting_births() { ++noting; }

void end_noting_births() {
  if (--noting == 0) {
    recent.clear();
    known.clear();
  }
}

bool notes_births() { return noting != 0; }

void note_birth(const void* object) {
  if (noting == 0) {
    return;
  }
  if (recent.size() == max_recent) {
    sort_in_recent();
  }
  recent.push_back({object, next_level_id()});
}

void detail::refuse_captured(const char* name, const Tensor& self) {
  // Below autograd nobody records: a kernel may write where it likes.
  // On a thread of autograd's own nobody has noted births.
  if (noting == 0 || autograd_is_excluded() || torch_func_is_active() || !is_differentiable(self) ||
      find_object == nullptr) {
    return;
  }
  const Tensor base = self.is_view() ? Tensor(self._base()) : self;
  const void* object = find_object(base);
  const auto visible = active_levels();
  for (auto it = visible.rbegin(); it != visible.rend() && object != nullptr; ++it) {
    Level& level = **it;
    if (level.transform != Transform::Grad) {
      continue;
    }
    if (is_own(level, object)) {
      return;
    }
    TORCH_CHECK(has_argument(level, object) || has_argument(level, find_object(self)),
                "functx.grad: ", name,
                " would mutate a captured Tensor: it writes a value that is being differentiated "
                "into a tensor from outside of the function that grad (or vjp, jacrev...) "
                "transforms, and would tie it to a tape that ends with the transform. Pass it to "
                "the function as an argument, use the out-of-place operator, write into a clone, "
                "or detach the value if it is a statistic.");
    level.written_arguments.push_back(self);
  }
}

void check_not_captured(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  const auto& parameters = schema.arguments();
  const auto arguments = torch::jit::last(stack, parameters.size());
  if (parameters.empty() || !is_written(parameters.front()) || takes_out(schema) ||
      !arguments.front().isTensor() || !c10::GradMode::is_enabled()) {
    return;
  }
  const bool writes_tracked =
      std::any_of(arguments.begin() + 1, arguments.end(), [](const c10::IValue& source) {
        return source.isTensor() && source.toTensor().requires_grad();
      });
  if (writes_tracked) {
    detail::refuse_captured(schema.name().c_str(), arguments.front().toTensor());
  }
}

}  // namespace functx
