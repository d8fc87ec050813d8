// Warnings of ours, which go where the loop's go.
#pragma once

#include <string>

namespace functx {

void warn(const std::string& message);

}  // namespace functx
