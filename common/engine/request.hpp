#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/base/trace_context.hpp"
#include "common/model/positions.hpp"
#include "common/sampling/sampling_params.hpp"

namespace moesaic {

/// Features of one image or video, as the decoder inserts them: the resampler's output.
struct VisualFeatures {
  bool video = false;
  VisualGrid grid{};
  std::size_t rows = 0;  ///< visual_rows(grid), one per placeholder
  std::size_t hidden = 0;
  std::vector<float> values;  ///< [rows, hidden] f32 (bf16-valued in mode bf16)
  std::string content_hash;   ///< SHA-256 of pixels, sizes and preprocessing settings
};
using VisualFeaturesPtr = std::shared_ptr<const VisualFeatures>;

/// One sequence to generate: what the gateway sends to a decoder, complete enough to be replayed
/// elsewhere.
struct GenerateRequest {
  std::uint64_t id = 0;              ///< unique within the gateway's life
  std::vector<std::int32_t> prompt;  ///< token ids, placeholders expanded
  /// Tokens of the answer that another decoder produced before it was lost: they are not told
  /// again, and everything goes on as if they had been drawn here.
  std::vector<std::int32_t> generated;
  std::vector<VisualFeaturesPtr>
      visuals;  ///< in order of appearance; sum of rows == placeholders in `prompt`
  std::uint32_t max_tokens = 0;        ///< > 0; prompt + max_tokens <= context
  std::vector<std::int32_t> stop_ids;  ///< generation ends after one of these (it is emitted, too)
  SamplingParams sampling;
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
  std::string request_id;  ///< what logs and answers call it: x-request-id
  TraceContext trace;      ///< spans of this request are its children; not valid: no trace
};
using GenerateRequestPtr = std::shared_ptr<const GenerateRequest>;

enum class FinishReason : std::uint8_t {
  kStop,       ///< a stop id was drawn
  kLength,     ///< max_tokens reached
  kCancelled,  ///< `cancel` was called
  kError,      ///< see `TokenEvent::error`
};

/// What an engine step tells about one sequence.
struct TokenEvent {
  std::uint64_t id = 0;
  std::vector<std::int32_t> tokens;      ///< new ones, in order
  std::optional<FinishReason> finished;  ///< set once, with the last event of the sequence
  std::optional<Error> error;  ///< with kError: kDeadlineExceeded, kOverloaded, kUnavailable, ...
};
/// All events of one step.
using TokenEvents = std::vector<TokenEvent>;

/// Numbers an operator wants from a decoder.
struct EngineStatus {
  std::size_t running = 0;
  std::size_t waiting = 0;
  std::size_t kv_blocks_total = 0;
  std::size_t kv_blocks_free = 0;
  std::uint64_t prompt_tokens = 0;
  std::uint64_t generated_tokens = 0;
  std::uint64_t steps = 0;
};

}  // namespace moesaic
