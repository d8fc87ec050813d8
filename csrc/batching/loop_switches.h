// Whether operators without a batching rule may run in a loop over the examples.
#pragma once

namespace functx {

// Lets them, or makes them raise an error; returns the old setting.
bool allow_loop(bool allowed);
bool loop_is_allowed();

}  // namespace functx
