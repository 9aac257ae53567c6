#include "common/engine/memory_plan.hpp"

#include <algorithm>

#include "common/engine/step.hpp"

namespace moesaic {
namespace {

std::string mib(std::uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

}  // namespace

std::uint64_t MemoryPlan::kv_bytes(std::size_t tokens) const {
  return kv_blocks_for(tokens) * kv_block_bytes;
}

std::size_t MemoryPlan::longest_context() const {
  return available > fixed() ? (available - fixed()) / kv_block_bytes * kPageTokens : 0;
}

MemoryPlan plan_memory(const ModelConfig& config, const MemorySettings& settings,
                       std::uint64_t weights, std::uint64_t available) {
  MemoryPlan plan;
  plan.available = available;
  plan.weights = weights;
  plan.scratch = step_scratch_bytes(config, settings.limits) + settings.beside_bytes;
  plan.kv_block_bytes = PagedKvCache::block_bytes(
      DecoderStep::attention_shape(config, settings.kv_type), config.layers);
  plan.context = settings.max_context > 0 ? settings.max_context : config.max_positions;
  const auto room = available > plan.fixed() ? available - plan.fixed() : 0;
  plan.kv_blocks = std::min<std::uint64_t>(
      (settings.kv_bytes > 0 ? settings.kv_bytes : room) / plan.kv_block_bytes,
      settings.limits.max_running * kv_blocks_for(plan.context));
  return plan;
}

Result<void> check_plan(const MemoryPlan& plan, const MemorySettings& settings) {
  const auto cache = plan.kv_blocks * plan.kv_block_bytes;
  if (plan.weights + cache > plan.available)
    return fail(Errc::kOverloaded, mib(plan.weights) + " of weights and a KV cache of " +
                                       mib(cache) + " need more than the " + mib(plan.available) +
                                       " of memory; lower kv.bytes");
  if (plan.one_context_fits()) return {};
  std::string text = "KV cache: one context of " + std::to_string(plan.context) + " tokens needs " +
                     mib(plan.kv_bytes(plan.context)) + ", " +
                     std::to_string(plan.kv_blocks * kPageTokens) + " tokens fit in ";
  if (settings.kv_bytes > 0) {
    text += "the " + mib(settings.kv_bytes) + " of kv.bytes; raise it or lower engine.max_context";
  } else {
    text += "what " + mib(plan.available) + " of memory leave beside " + mib(plan.weights) +
            " of weights, " + mib(plan.scratch) + " of buffers and " + mib(plan.reserve) +
            " in reserve; lower engine.max_context";
  }
  return fail(Errc::kOverloaded, std::move(text));
}

std::uint64_t step_scratch_bytes(const ModelConfig& config, const SchedulerLimits& limits) {
  const std::uint64_t hidden = config.hidden;
  const std::uint64_t top_k = config.experts_per_token;
  const std::uint64_t width = std::max(config.expert_width[0], config.expert_width[1]);
  const std::uint64_t dense = std::max(config.intermediate, config.shared_width);
  // Values of a row: the stream, its normed form, shared experts, a branch, attended heads, the
  // gate's input; q, k and v; what each chosen expert takes in, has within (as products and as
  // operands) and gives.
  const std::uint64_t row = 6 * hidden +
                            (config.heads + 2 * config.kv_heads) * std::uint64_t{config.head_dim} +
                            top_k * (2 * hidden + 2 * width) + 2 * dense;
  const std::uint64_t rows = std::max(limits.step_rows, limits.max_running);
  return (rows * row + limits.max_running * std::uint64_t{config.vocab_size}) * sizeof(float);
}

std::uint64_t vision_scratch_bytes(const ModelConfig& config, std::uint64_t patches) {
  const auto& v = config.vision;
  const std::uint64_t hidden = v.hidden;
  // Values of a patch: pixels; the stream, two operands of bf16, what the resampler has of it
  // twice; the widest product; the hidden layer in bf16.
  const std::uint64_t row = v.patch_values() + 4 * hidden +
                            std::max<std::uint64_t>(3 * hidden, v.intermediate) +
                            v.intermediate / 2;
  return patches * row * sizeof(float);
}

}  // namespace moesaic
