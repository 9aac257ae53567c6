#pragma once

#include "actors/contracts/actors.hpp"
#include "common/transport/frame.hpp"

namespace moesaic {

/// Requests, tokens and images as frames between a gateway and a decoder or vision encoder. What is
/// read came from another process: every size is checked against what the frame holds.

/// kSubmit. The deadline travels as time left.
transport::Frame make_submit(const GenerateRequest& request,
                             std::chrono::steady_clock::time_point now);
/// @errors kCorrupt, kShapeMismatch
[[nodiscard]] Result<GenerateRequest> read_submit(const transport::Frame& frame,
                                                  std::chrono::steady_clock::time_point now);

/// kTokens: the events of one step that belong to one gateway.
transport::Frame make_tokens(const TokenEvents& events);
[[nodiscard]] Result<TokenEvents> read_tokens(const transport::Frame& frame);

/// kCancel.
transport::Frame make_cancel(std::uint64_t id);
[[nodiscard]] Result<std::uint64_t> read_cancel(const transport::Frame& frame);

/// kEncode.
transport::Frame make_encode(const VisualItem& item);
[[nodiscard]] Result<VisualItem> read_encode(const transport::Frame& frame);

/// kFeatures. bf16-valued features travel as bf16, others as f32: the bits arrive as they were.
transport::Frame make_features(const VisualFeatures& features);
[[nodiscard]] Result<VisualFeatures> read_features(const transport::Frame& frame);

}  // namespace moesaic
