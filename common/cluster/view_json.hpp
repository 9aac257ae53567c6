#pragma once

#include <string>

#include "common/cluster/view.hpp"

namespace moesaic::cluster {

/// The view as JSON, for people and tools (GET /view). The placement is told shard by shard, as
/// groups of layers with the same experts: {"layers": "1-27", "modality": "text", "experts":
/// "0-31"}.
std::string to_json(const View& view);

}  // namespace moesaic::cluster
