// What the schema of an operator says of writing.
#pragma once

#include <ATen/core/function_schema.h>

#include <algorithm>
#include <optional>

namespace functx {

inline bool is_written(const c10::Argument& argument) {
  return argument.alias_info() != nullptr && argument.alias_info()->isWrite();
}

// Whether results go to `out=` arguments; these come last.
inline bool takes_out(const c10::FunctionSchema& schema) {
  return !schema.arguments().empty() && schema.arguments().back().is_out();
}

// The argument that a result is, having been written to; none if the result is new or a view.
inline std::optional<size_t> written_argument(const c10::FunctionSchema& schema,
                                              const c10::Argument& result) {
  if (!is_written(result)) {
    return std::nullopt;
  }
  const auto& arguments = schema.arguments();
  const auto found =
      std::find_if(arguments.begin(), arguments.end(), [&](const c10::Argument& argument) {
        return argument.alias_info() != nullptr && *argument.alias_info() == *result.alias_info();
      });
  return found == arguments.end() ? std::nullopt
                                  : std::make_optional<size_t>(found - arguments.begin());
}

}  // namespace functx
