#pragma once

#include <string_view>

#include "common/transport/frame.hpp"

namespace moesaic::transport {

/// Frames that take one of the peer's credits until they are answered.
constexpr bool is_question(FrameType type) {
  return type == FrameType::kExpertRows || type == FrameType::kMoeRows ||
         type == FrameType::kSubmit || type == FrameType::kEncode || type == FrameType::kProbe;
}

/// Frames that give the credit of the question with their sequence number back.
constexpr bool is_answer(FrameType type) {
  return type == FrameType::kExpertNodes || type == FrameType::kMoeSums ||
         type == FrameType::kAccepted || type == FrameType::kFeatures ||
         type == FrameType::kProbed || type == FrameType::kFailure || type == FrameType::kStale;
}

/// What a frame carries, as the metrics name it.
enum class FrameKind : unsigned char { kActivations, kImageEmbeddings, kControl };
inline constexpr std::string_view kFrameKindNames[] = {"activations", "image_embeddings",
                                                       "control"};
constexpr FrameKind kind_of(FrameType type) {
  switch (type) {
    case FrameType::kExpertRows:
    case FrameType::kExpertNodes:
    case FrameType::kMoeRows:
    case FrameType::kMoeSums:
      return FrameKind::kActivations;
    case FrameType::kEncode:
    case FrameType::kFeatures:
      return FrameKind::kImageEmbeddings;
    default:
      return FrameKind::kControl;
  }
}

}  // namespace moesaic::transport
