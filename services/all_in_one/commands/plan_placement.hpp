#pragma once

#include <string>
#include <vector>

#include "common/engine/model_loader.hpp"

namespace moesaic {

/// A placement of experts to check, and what its costs are told by.
struct PlacementPlanOptions {
  ModelOptions model;
  std::string placement;            ///< file; empty: even ranges over `shards`
  std::vector<std::string> shards;  ///< declared; none: as few as the file can do with
  std::string carrier = "tcp";
  double rtt_us = 0;  ///< 0: the carrier's
  double gbps = 0;    ///< memory bandwidth of a shard; 0: measured
  bool as_json = false;
};

/// Resolves the placement and prints it with its costs. @errors say why the placement is bad
[[nodiscard]] Result<void> plan_placement(const PlacementPlanOptions& options);

}  // namespace moesaic
