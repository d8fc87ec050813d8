#include "core/level.h"

#include <c10/core/AutogradState.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <string_view>
#include <type_traits>

#include "core/captured.h"
#include "core/keys.h"
#include "core/load.h"
#include "core/tape_inside.h"
#include "core/torch_func.h"

namespace functx {
namespace {

constexpr int64_t no_limit = std::numeric_limits<int64_t>::max();

std::atomic<int64_t> next_id{1};
thread_local std::vector<LevelPtr> levels;
// Levels from this id on are hidden.
thread_local int64_t limit = no_limit;

struct LevelsOfAnotherThread final : c10::DebugInfoBase {
  explicit LevelsOfAnotherThread(std::vector<LevelPtr> levels) : levels(std::move(levels)) {}
  const std::vector<LevelPtr> levels;
};

// Older versions of PyTorch number the kinds of information, others name them.
template <class Kind>
Kind kind_of_carried() {
  if constexpr (std::is_enum_v<Kind>) {
    return static_cast<Kind>(0xf7);
  } else {
    static constexpr std::string_view name = "FUNCTX_LEVELS";
    return Kind(&name);
  }
}
const auto kCarried = kind_of_carried<c10::DebugInfoKind>();

const LevelsOfAnotherThread* carried() {
  return dynamic_cast<LevelsOfAnotherThread*>(c10::ThreadLocalDebugInfo::get(kCarried));
}

// Those of this thread, or else those that were carried to it.
const std::vector<LevelPtr>& stack() {
  if (levels.empty()) {
    if (const auto* from_elsewhere = carried()) {
      return from_elsewhere->levels;
    }
  }
  return levels;
}

// How many of `all` are not hidden.
size_t count_visible(const std::vector<LevelPtr>& all) {
  // Ids increase from the outside in.
  const auto hidden = std::find_if(all.begin(), all.end(),
                                   [](const LevelPtr& level) { return level->id >= limit; });
  return hidden - all.begin();
}

// The mode key costs its operators a detour, so it is on only while a level needs it.
void update_mode_key() {
  const bool needed =
      std::any_of(levels.begin(), levels.end(), [](const LevelPtr& l) { return l->wraps(); });
  c10::impl::tls_set_dispatch_key_included(kModeKey, needed);
}

// A factory that wraps new tensors has to tell a call of the user's from one that a kernel makes
// for itself. So operators on plain tensors come to the front key too, which hides all levels from
// their kernels.
void update_front_key() {
  const auto visible = limit > 0 ? active_levels() : c10::ArrayRef<LevelPtr>();
  const bool needed = std::any_of(visible.begin(), visible.end(),
                                  [](const LevelPtr& l) { return l->wraps_new_tensors; });
  c10::impl::tls_set_dispatch_key_included(kFrontKey, needed);
}

void check_sees_operators(Transform transform) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::PreDispatch), "functx.",
      name_of(transform), ": torch.export, and make_fx with pre_dispatch=True, record operators ",
      "before a transform sees them. Record the transformed function first, and export that: ",
      "torch.export.export(functx.make_fx(f)(*args), args).");
}

LevelPtr push(Transform transform, int64_t batch_size, Randomness randomness) {
  if (!is_thread_prepared) [[unlikely]] {
    prepare_thread();
  }
  const auto level = c10::make_intrusive<Level>(transform, batch_size, randomness);
  if (level->wraps()) {
    check_sees_operators(transform);
  }
  if (levels.empty()) {
    if (const auto* from_elsewhere = carried()) [[unlikely]] {
      levels = from_elsewhere->levels;
      level->is_on_carried = true;
    }
  }
  if (limit != no_limit) [[unlikely]] {
    // A rule runs code that enters a transform of its own, which must not hide the new level.
    level->limit_outside = limit;
    const auto hidden = levels.begin() + static_cast<ptrdiff_t>(count_visible(levels));
    level->suspended.assign(hidden, levels.end());
    levels.erase(hidden, levels.end());
    limit = no_limit;
  }
  levels.push_back(level);
  if (level->wraps()) {
    c10::impl::tls_set_dispatch_key_included(kModeKey, true);
  }
  update_front_key();
  return level;
}

void pop_innermost() {
  const LevelPtr level = std::move(levels.back());
  levels.pop_back();
  level->alive = level->is_identity;
  if (level->limit_outside.has_value()) [[unlikely]] {
    levels.insert(levels.end(), level->suspended.begin(), level->suspended.end());
    level->suspended.clear();
    limit = *level->limit_outside;
  }
  if (level->is_on_carried) [[unlikely]] {
    levels.clear();
  }
  if (level->transform == Transform::Grad) {
    if (level->wrapped_for != nullptr) {
      level->wrapped_for->wraps_new_tensors = false;
      level->wrapped_for.reset();
    }
    level->outside_inference_mode.reset();
    c10::GradMode::set_enabled(level->grad_mode_outside);
    end_noting_births();
    c10::impl::tls_set_dispatch_key_included(kGradKey, notes_births());
  } else {
    update_mode_key();
  }
  update_front_key();
}

}  // namespace

Level::Level(Transform transform, int64_t batch_size, Randomness randomness)
    : id(next_id++),
      transform(transform),
      randomness(randomness),
      batch_size(batch_size),
      torch_func_depth(functx::torch_func_depth()),
      wraps_new_tensors(transform == Transform::Jvp) {}

const char* name_of(Transform transform) {
  switch (transform) {
    case Transform::Vmap:
      return "vmap";
    case Transform::Jvp:
      return "jvp";
    case Transform::Grad:
      return "grad";
  }
  return "";
}

const char* name_of(Randomness randomness) {
  switch (randomness) {
    case Randomness::Error:
      return "error";
    case Randomness::Different:
      return "different";
    case Randomness::Same:
      return "same";
  }
  return "";
}

LevelPtr push_vmap(int64_t batch_size, Randomness randomness) {
  return push(Transform::Vmap, batch_size, randomness);
}

LevelPtr push_jvp() { return push(Transform::Jvp, 0, Randomness::Error); }

LevelPtr push_grad() {
  LevelPtr stratum;
  if (torch_func_depth() > 0) {
    // Autograd sees nothing of what torch.func's interpreters do with its wrappers: the tape gets
    // wrappers of ours to sit on, duals that never have a tangent.
    stratum = push(Transform::Jvp, 0, Randomness::Error);
    stratum->is_identity = true;
  }
  std::vector<LevelPtr> around = active_levels().vec();
  LevelPtr level = push(Transform::Grad, 0, Randomness::Error);
  level->around = std::move(around);
  if (LevelPtr inner = innermost_wrapper_level(); inner != nullptr && !inner->wraps_new_tensors) {
    inner->wraps_new_tensors = true;
    level->wrapped_for = std::move(inner);
    update_front_key();
  }
  begin_noting_births();
  c10::impl::tls_set_dispatch_key_included(kGradKey, true);
  level->stratum = stratum;
  level->grad_mode_outside = c10::GradMode::is_enabled();
  if (c10::InferenceMode::is_enabled()) {
    level->outside_inference_mode.emplace(false);
  }
  c10::GradMode::set_enabled(true);
  return level;
}

void pop(const LevelPtr& level) {
  const LevelPtr& outermost = level->stratum != nullptr ? level->stratum : level;
  while (std::find(levels.begin(), levels.end(), outermost) != levels.end()) {
    pop_innermost();
  }
}

int64_t next_level_id() { return next_id; }

c10::ArrayRef<LevelPtr> active_levels() {
  const std::vector<LevelPtr>& all = stack();
  const size_t end = count_visible(all);
  size_t begin = 0;
  if (torch_func_is_active()) {
    // Operators come to levels outside of torch.func's innermost transform when it is done.
    const int64_t depth = torch_func_depth();
    while (begin < end && all[begin]->torch_func_depth < depth) {
      ++begin;
    }
  }
  return c10::ArrayRef<LevelPtr>(all).slice(begin, end - begin);
}

LevelPtr innermost_wrapper_level() {
  const auto visible = active_levels();
  const auto found = std::find_if(visible.rbegin(), visible.rend(),
                                  [](const LevelPtr& level) { return level->wraps(); });
  return found == visible.rend() ? LevelPtr() : *found;
}

bool has_tape_inside(const Level& level) {
  const std::vector<LevelPtr>& all = stack();
  return std::any_of(all.begin(), all.end(), [&](const LevelPtr& inner) {
    return inner->id > level.id && inner->transform == Transform::Grad;
  });
}

CarriedLevels::CarriedLevels(std::vector<LevelPtr> carried)
    : carried_(kCarried, std::make_shared<LevelsOfAnotherThread>(std::move(carried))),
      keys_outside_(c10::impl::tls_local_dispatch_key_set()) {
  if (levels.empty()) {
    const auto visible = active_levels();
    c10::impl::tls_set_dispatch_key_included(
        kModeKey, std::any_of(visible.begin(), visible.end(),
                              [](const LevelPtr& level) { return level->wraps(); }));
    update_front_key();
  }
}

CarriedLevels::~CarriedLevels() { c10::impl::_force_tls_local_dispatch_key_set(keys_outside_); }

HideFrom::HideFrom() : outer_limit_(limit) {
  limit = 0;
  update_front_key();
}

HideFrom::HideFrom(const Level& level) : outer_limit_(limit) {
  limit = std::min(limit, level.id);
  update_front_key();
}

HideFrom::~HideFrom() {
  limit = outer_limit_;
  update_front_key();
}

}  // namespace functx
