#include "common/engine/shard_imbalance.hpp"

#include <algorithm>
#include <numeric>

namespace moesaic {

double imbalance_ratio(std::span<const std::uint64_t> work) {
  const auto sum = std::accumulate(work.begin(), work.end(), std::uint64_t{0});
  if (sum == 0) return 1;
  return static_cast<double>(*std::max_element(work.begin(), work.end())) *
         static_cast<double>(work.size()) / static_cast<double>(sum);
}

}  // namespace moesaic
