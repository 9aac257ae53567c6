#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/engine/memory_plan.hpp"
#include "common/kernels/isa.hpp"
#include "common/model/weight_plan.hpp"

namespace moesaic {

/// What to plan: a model on this machine, or on one of that memory and speed.
struct MachinePlanOptions {
  std::filesystem::path model{};  ///< a pack, a checkpoint, or a config.json alone
  std::string format{};  ///< of a pack to be made; empty: a pack's own, a checkpoint's bf16
  std::filesystem::path policy{};  ///< the same by a policy file
  std::string kv = "auto";         ///< auto, f32, bf16, int8
  std::size_t context = 0;         ///< tokens; 0: the model's
  std::size_t sequences = 1;       ///< of that context
  std::uint64_t memory_bytes = 0;  ///< to be had; 0: what this machine has
};

/// What a machine can do, GB and operations a second (1e9); 0: unknown.
struct MachineSpeed {
  double read_gbs = 0;
  double peak_gops = 0;
  double disk_gbs = 0;
  Isa isa{};  ///< of `peak_gops`
};

/// A model's memory, and what follows from it. Nothing is loaded.
struct MachinePlan {
  ModelConfig config;
  std::string source;  ///< "pack", "checkpoint", "configuration"
  WeightPlan weights;
  Compute compute = Compute::kBf16;
  Compute kv_type = Compute::kBf16;
  std::size_t sequences = 1;
  MemoryPlan memory;  ///< its cache: all sequences

  bool fits() const { return memory.needed() <= memory.available; }
  /// Tokens of the longest sequence that fits, if it is alone.
  std::size_t longest_context() const;
  double kv_token_bytes() const;
  /// Read for the next token of a sequence that has so many.
  double token_bytes(std::size_t context) const;
};

/// @errors those of reading the model; kInvalidArgument: a format for a pack, or a context beyond
/// the model's
[[nodiscard]] Result<MachinePlan> plan_machine(const MachinePlanOptions& options);

/// Shares of the ceilings that the kernels reach (README has the measurements): what estimates are
/// made with.
inline constexpr double kDecodeShare = 0.90;
inline constexpr double kLongDecodeShare = 0.85;  ///< beyond kLongContext tokens
inline constexpr std::size_t kLongContext = 8192;
double prefill_share(Isa isa);

/// Tokens a second, estimated; 0: the speed is unknown.
double decode_rate(const MachinePlan& plan, const MachineSpeed& speed, std::size_t context);
double prefill_rate(const MachinePlan& plan, const MachineSpeed& speed, std::size_t tokens);
/// Seconds until all weights are in memory, estimated; 0: unknown.
double load_seconds(const MachinePlan& plan, const MachineSpeed& speed);

std::string to_text(const MachinePlan& plan, const MachineSpeed& speed);
std::string to_json(const MachinePlan& plan, const MachineSpeed& speed);

}  // namespace moesaic
