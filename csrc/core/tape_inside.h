// Tapes of grad levels inside of another level, which that one does not see.
#pragma once

#include "core/level.h"

namespace functx {

// Whether a grad level inside of `level` is active, be it hidden: its tape may save what operators
// of `level` return, on a wrapper of yet another level in between.
bool has_tape_inside(const Level& level);

}  // namespace functx
