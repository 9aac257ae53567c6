#pragma once

#include <string>

namespace moesaic {

/// The CPU's own name for itself.
std::string cpu_name();

}  // namespace moesaic
