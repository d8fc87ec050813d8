// The loop over the examples, from outside: whether it may run, and for which operators it did.
#pragma once

#include <string>
#include <vector>

namespace functx {

// Lets operators without a batching rule loop, or makes them raise; returns the old setting.
bool allow_loop(bool allowed);
bool loop_is_allowed();

// The operators that ran in a loop since the last call, also those whose rules loop where nothing
// else will do, without a warning.
std::vector<std::string> take_looped_operators();

}  // namespace functx
