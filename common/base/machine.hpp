#pragma once

#include <string>

namespace moesaic {

/// The CPU's own name for itself.
std::string cpu_name();

/// True if the CPU says that a hypervisor runs it.
bool on_virtual_machine();

}  // namespace moesaic
