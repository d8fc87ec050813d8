// Levels: the active transforms of a thread, outermost first.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <c10/util/intrusive_ptr.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace functx {

enum class Transform : uint8_t { Vmap, Jvp, Grad };
enum class Randomness : uint8_t { Error, Different, Same };

// The arguments of a call and the positions of those that are differentiated, objects of Python
// that it keeps alive for the time of the call.
struct PythonCall {
  const void* args = nullptr;
  const void* kwargs = nullptr;
  const void* argnums = nullptr;
};

struct Level final : c10::intrusive_ptr_target {
  Level(Transform transform, int64_t batch_size, Randomness randomness);

  // Increases with every transform entered in this process and is never reused, so that of two
  // wrappers the one with the larger id belongs to the inner transform.
  const int64_t id;
  const Transform transform;
  const Randomness randomness;
  const int64_t batch_size;
  // torch_func_depth() when this transform was entered.
  const int64_t torch_func_depth;
  // False once the transform has returned: a wrapper of a dead level has escaped.
  bool alive = true;
  // True once autograd may record on wrappers of this level; from then on views are recorded even
  // of untracked wrappers, because a tracked value may be written into one later.
  bool may_record = false;
  // Whether new tensors are made as wrappers of this level, since something may be written into
  // them that has a tangent, or that a grad level inside tracks on its wrappers.
  bool wraps_new_tensors = false;
  // Grad levels only: the level for which this one has set that.
  c10::intrusive_ptr<Level> wrapped_for;
  // Grad levels only: the modes to return to.
  bool grad_mode_outside = true;
  std::optional<c10::InferenceMode> outside_inference_mode;
  // Grad levels only: what the transform was called with, and the arguments that came onto the tape
  // by a write; see captured.h.
  PythonCall call;
  std::vector<at::Tensor> written_arguments;
  // Grad levels only: keeps the nodes at which the tape of its inputs begins, of which a tensor has
  // but a weak reference; see reverse_ad/tape.cpp.
  std::shared_ptr<void> leaves;
  // Grad levels only: those around it, which its pullback may need on another thread.
  std::vector<c10::intrusive_ptr<Level>> around;
  // Levels that were hidden when this one was entered, and come back when it is left.
  std::vector<c10::intrusive_ptr<Level>> suspended;
  std::optional<int64_t> limit_outside;
  // Whether it was entered on a thread of autograd's, which had the levels of another one.
  bool is_on_carried = false;
  // Under torch.func's transforms a grad level brings a wrapper level of its own for the tape: one
  // of duals that never have a tangent. Being the same as their values, they cannot escape.
  c10::intrusive_ptr<Level> stratum;
  bool is_identity = false;

  bool wraps() const { return transform != Transform::Grad; }
};

using LevelPtr = c10::intrusive_ptr<Level>;

const char* name_of(Transform transform);
const char* name_of(Randomness randomness);

LevelPtr push_vmap(int64_t batch_size, Randomness randomness);
LevelPtr push_jvp();
LevelPtr push_grad();

// Leaves `level` and whatever is still above it: an exception may have skipped inner pops.
void pop(const LevelPtr& level);

// The id of the level that is entered next, on whatever thread.
int64_t next_level_id();

// The levels of this thread that operators may see, outermost first.
c10::ArrayRef<LevelPtr> active_levels();
// The innermost vmap or jvp level, or null.
LevelPtr innermost_wrapper_level();

// Lets operators on this thread, and on those of autograd that work for it, see `levels`, where
// they see none of their own. PyTorch carries what is included in dispatch to its threads, and the
// information for debugging, in which the levels travel.
class CarriedLevels {
 public:
  explicit CarriedLevels(std::vector<LevelPtr> levels);
  ~CarriedLevels();
  CarriedLevels(const CarriedLevels&) = delete;
  CarriedLevels& operator=(const CarriedLevels&) = delete;

 private:
  c10::DebugInfoGuard carried_;
  c10::impl::LocalDispatchKeySet keys_outside_;
};

// Hides `level` and all inside it: what its rule calls belongs to the levels outside. Without a
// level it hides all: what PyTorch's kernels call on plain tensors is no level's business.
class HideFrom {
 public:
  HideFrom();
  explicit HideFrom(const Level& level);
  ~HideFrom();
  HideFrom(const HideFrom&) = delete;
  HideFrom& operator=(const HideFrom&) = delete;

 private:
  int64_t outer_limit_;
};

}  // namespace functx
