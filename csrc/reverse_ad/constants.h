// Results that autograd takes for constants and that are none.
#pragma once

namespace functx {

// Warns, once for each operator, that nothing goes back through it.
void warn_of_constant(const char* name, const char* remedy);

}  // namespace functx
