#pragma once

#include <cstdint>
#include <span>

namespace moesaic {

/// The busiest shard's work over the mean of all: 1 is even, the number of shards is one that does
/// everything. 1 if there is no work.
double imbalance_ratio(std::span<const std::uint64_t> work_per_shard);

}  // namespace moesaic
