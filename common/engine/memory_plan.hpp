#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "common/base/result.hpp"
#include "common/engine/scheduler.hpp"
#include "common/kernels/compute.hpp"
#include "common/model/config.hpp"

namespace moesaic {

/// Kept free for what no plan counts: programs, libraries, requests.
inline constexpr std::uint64_t kMemoryReserve = std::uint64_t{1} << 30;

/// What decides the memory of a decoder's process, beside the model.
struct MemorySettings {
  Compute kv_type = Compute::kBf16;
  std::uint64_t kv_bytes = 0;   ///< 0: what is left, at most max_running contexts
  std::size_t max_context = 0;  ///< tokens; 0: the model's
  SchedulerLimits limits{};
  std::uint64_t beside_bytes = 0;  ///< of the process, beside decoder and KV cache
};

/// The memory of a decoder's process: made before anything is loaded, kept to afterwards.
struct MemoryPlan {
  std::uint64_t available = 0;  ///< before the weights are there
  std::uint64_t weights = 0;
  std::uint64_t scratch = 0;  ///< of steps, and what is beside the decoder
  std::uint64_t reserve = kMemoryReserve;
  std::uint64_t kv_block_bytes = 0;  ///< of kPageTokens tokens, all layers
  std::uint64_t kv_blocks = 0;       ///< that the cache will have
  std::size_t context = 0;           ///< tokens of one sequence

  /// Everything but the KV cache.
  std::uint64_t fixed() const { return weights + scratch + reserve; }
  /// With the cache.
  std::uint64_t needed() const { return fixed() + kv_blocks * kv_block_bytes; }
  /// Bytes of keys and values of one sequence of so many tokens.
  std::uint64_t kv_bytes(std::size_t tokens) const;
  /// Tokens of the longest sequence whose keys and values fit beside the rest.
  std::size_t longest_context() const;
  bool one_context_fits() const { return kv_blocks * kv_block_bytes >= kv_bytes(context); }
};

/// @param weights   bytes that this process is going to hold or map
/// @param available bytes to be had before that
MemoryPlan plan_memory(const ModelConfig& config, const MemorySettings& settings,
                       std::uint64_t weights, std::uint64_t available);

/// @errors kOverloaded: less than one full context fits; the text has the numbers
[[nodiscard]] Result<void> check_plan(const MemoryPlan& plan, const MemorySettings& settings);

/// Most bytes of the buffers of decoder steps, experts included.
std::uint64_t step_scratch_bytes(const ModelConfig& config, const SchedulerLimits& limits);
/// Most bytes of the vision tower's buffers for a picture of so many patches.
std::uint64_t vision_scratch_bytes(const ModelConfig& config, std::uint64_t patches);

}  // namespace moesaic
