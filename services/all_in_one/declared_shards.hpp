#pragma once

#include <string>
#include <vector>

#include "common/cluster/placement_file.hpp"
#include "common/cluster/view.hpp"

namespace moesaic {

/// Shards as they would register, told on a command line: "name=a,node=a,memory_gib=16". All but
/// the name are labels; memory_gib is the capacity, too (none: not checked).
/// @errors kInvalidArgument: the part that is wrong, a name given twice
[[nodiscard]] Result<std::vector<cluster::Member>> declared_shards(
    const std::vector<std::string>& texts);

/// As few shards as the file can do with, with the labels it asks for and no limit of memory.
std::vector<cluster::Member> invented_shards(const cluster::PlacementFile& file);

}  // namespace moesaic
