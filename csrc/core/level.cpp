#include "core/level.h"

#include <c10/core/AutogradState.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>
#include <atomic>
#include <iterator>

#include "core/keys.h"

namespace functx {
namespace {

std::atomic<int64_t> next_id{1};
thread_local std::vector<LevelPtr> levels;

// The mode key costs its operators a detour, so it is on only while a level needs it.
void update_mode_key() {
  const bool needed =
      std::any_of(levels.begin(), levels.end(), [](const LevelPtr& l) { return l->wraps(); });
  c10::impl::tls_set_dispatch_key_included(kModeKey, needed);
}

LevelPtr push(Transform transform, int64_t batch_size, Randomness randomness) {
  levels.push_back(c10::make_intrusive<Level>(transform, batch_size, randomness));
  if (levels.back()->wraps()) {
    c10::impl::tls_set_dispatch_key_included(kModeKey, true);
  }
  return levels.back();
}

void pop_innermost() {
  const LevelPtr level = std::move(levels.back());
  levels.pop_back();
  level->alive = false;
  if (level->transform == Transform::Grad) {
    c10::GradMode::set_enabled(level->grad_mode_outside);
  } else {
    update_mode_key();
  }
}

}  // namespace

Level::Level(Transform transform, int64_t batch_size, Randomness randomness)
    : id(next_id++), transform(transform), randomness(randomness), batch_size(batch_size) {}

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
  LevelPtr level = push(Transform::Grad, 0, Randomness::Error);
  level->grad_mode_outside = c10::GradMode::is_enabled();
  c10::GradMode::set_enabled(true);
  return level;
}

void pop(const LevelPtr& level) {
  if (std::find(levels.begin(), levels.end(), level) == levels.end()) {
    return;
  }
  while (level->alive) {
    pop_innermost();
  }
}

const std::vector<LevelPtr>& active_levels() { return levels; }

LevelPtr innermost_wrapper_level() {
  const auto found =
      std::find_if(levels.rbegin(), levels.rend(), [](const LevelPtr& l) { return l->wraps(); });
  return found == levels.rend() ? LevelPtr() : *found;
}

HideInnerLevels::HideInnerLevels(size_t depth)
    : hidden_(std::make_move_iterator(levels.begin() + depth),
              std::make_move_iterator(levels.end())) {
  levels.resize(depth);
  update_mode_key();
}

HideInnerLevels::~HideInnerLevels() {
  std::move(hidden_.begin(), hidden_.end(), std::back_inserter(levels));
  update_mode_key();
}

}  // namespace functx
