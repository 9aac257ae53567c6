#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/engine/expert_backend.hpp"
#include "common/metrics/metrics.hpp"
#include "common/model/config.hpp"

namespace moesaic {

/// What a dispatcher counts about its shards (moesaic_moe_*). One per ShardFanOut, on its thread;
/// the series are the process's. Shards are named once and then known by number.
class MoeMetrics {
 public:
  /// Visits of a layer over which its imbalance is measured.
  static constexpr std::uint32_t kWindow = 256;

  explicit MoeMetrics(const ModelConfig& config);

  void sent(std::size_t shard, const std::string& name, std::uint32_t layer, std::size_t modality,
            std::size_t rows, std::uint64_t pairs, double seconds);
  void answered(std::size_t shard, double seconds);
  /// The last of several shards to answer a layer, so long after the first.
  void last(std::size_t shard, double skew_seconds);
  /// A layer's tree is finished.
  /// @param shards numbers of the placement's shards
  void combined(std::uint32_t layer, std::span<const std::size_t> shards, double seconds);
  /// A fault slowed the requests of a step; counted once per step.
  void degraded(const StepContext& step, const std::string& reason);
  void dropped(std::uint64_t rows);

 private:
  struct Shard {
    metrics::Histogram send, receive;
    metrics::Counter critical;
    std::vector<std::array<std::optional<metrics::Counter>, kModalities>> tokens;  ///< [layers]
    std::vector<std::uint64_t> pairs;  ///< [layers] in the window
  };
  struct Layer {
    std::uint32_t visits = 0;
    std::optional<metrics::Gauge> imbalance;
  };
  Shard& shard(std::size_t number, const std::string& name);

  std::uint32_t layers_;
  std::vector<std::optional<Shard>> shards_;
  std::vector<Layer> window_;
  metrics::Histogram combine_, skew_;
  std::vector<std::uint64_t> work_;
  std::optional<std::uint32_t> degraded_step_;
};

}  // namespace moesaic
