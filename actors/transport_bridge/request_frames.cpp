#include "actors/transport_bridge/request_frames.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "common/tensor/bf16.hpp"
#include "common/transport/bytes.hpp"

namespace moesaic {
namespace {

using Clock = std::chrono::steady_clock;
using transport::Frame;
using transport::FrameType;

/// What a frame says of one visual besides its values.
struct VisualShape {
  bool video = false;
  VisualGrid grid{};
  std::uint64_t rows = 0, hidden = 0;
  std::string content_hash;
};

template <class Codec>
void fields(Codec& codec, VisualShape& v) {
  codec(v.video);
  for (auto& size : v.grid) codec(size);
  codec(v.rows);
  codec(v.hidden);
  codec(v.content_hash);
}

struct SubmitMessage {
  std::uint64_t id = 0;
  std::vector<std::int32_t> prompt, generated, stop_ids;
  std::uint32_t max_tokens = 0;
  SamplingParams sampling;
  std::string request_id;
  std::vector<VisualShape> visuals;
};

template <class Codec>
void fields(Codec& codec, SubmitMessage& m) {
  codec(m.id);
  codec(m.prompt);
  codec(m.generated);
  codec(m.stop_ids);
  codec(m.max_tokens);
  codec(m.sampling.temperature);
  codec(m.sampling.top_p);
  codec(m.sampling.top_k);
  codec(m.sampling.min_p);
  codec(m.sampling.seed);
  codec(m.sampling.choice);
  codec(m.request_id);
  codec(m.visuals);
}

struct EventMessage {
  std::uint64_t id = 0;
  std::vector<std::int32_t> tokens;
  std::uint8_t finished = 0;  ///< 0: no, else FinishReason + 1
  std::uint8_t code = 0;      ///< 0: no error, else Errc
  std::string what;
};

template <class Codec>
void fields(Codec& codec, EventMessage& m) {
  codec(m.id);
  codec(m.tokens);
  codec(m.finished);
  codec(m.code);
  codec(m.what);
}

struct TokensMessage {
  std::vector<EventMessage> events;
};

template <class Codec>
void fields(Codec& codec, TokensMessage& m) {
  codec(m.events);
}

struct CancelMessage {
  std::uint64_t id = 0;
};

template <class Codec>
void fields(Codec& codec, CancelMessage& m) {
  codec(m.id);
}

struct EncodeMessage {
  bool video = false;
  double fps = 0;
  std::vector<std::uint64_t> frame_bytes;
};

template <class Codec>
void fields(Codec& codec, EncodeMessage& m) {
  codec(m.video);
  codec(m.fps);
  codec(m.frame_bytes);
}

VisualShape shape_of(const VisualFeatures& features) {
  return {features.video, features.grid, features.rows, features.hidden, features.content_hash};
}

bool is_bf16(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float value) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    return (bits & 0xffffU) == 0;
  });
}

/// Values of several visuals one after the other, as bf16 where that loses nothing.
Tensor pack_values(std::span<const std::span<const float>> pieces) {
  std::size_t total = 0;
  for (const auto& piece : pieces) total += piece.size();
  const bool narrow = std::all_of(pieces.begin(), pieces.end(), is_bf16);
  Tensor tensor(narrow ? DType::kBf16 : DType::kF32, {static_cast<std::int64_t>(total)});
  std::size_t at = 0;
  for (const auto& piece : pieces) {
    if (narrow) {
      auto* to = tensor.as<Bf16>().data() + at;
      for (std::size_t i = 0; i < piece.size(); ++i) to[i] = f32_to_bf16(piece[i]);
    } else if (!piece.empty()) {
      std::memcpy(tensor.as<float>().data() + at, piece.data(), piece.size_bytes());
    }
    at += piece.size();
  }
  return tensor;
}

/// The next visual's values out of a packed tensor.
Result<VisualFeatures> unpack(const VisualShape& shape, const Tensor& values, std::size_t& at) {
  constexpr std::uint64_t kMost = 1U << 30U;
  if (shape.rows > kMost || shape.hidden > kMost ||
      std::any_of(shape.grid.begin(), shape.grid.end(), [](auto size) { return size < 0; }))
    return fail(Errc::kCorrupt, "visual features: " + std::to_string(shape.rows) + " rows of " +
                                    std::to_string(shape.hidden));
  const auto size = static_cast<std::size_t>(shape.rows * shape.hidden);
  const bool narrow = values.dtype == DType::kBf16;
  if ((!narrow && values.dtype != DType::kF32) || size > values.elements() - at)
    return fail(Errc::kShapeMismatch, "visual features: " + std::to_string(size) +
                                          " values named, " +
                                          std::to_string(values.elements() - at) + " are there");
  VisualFeatures features;
  features.video = shape.video;
  features.grid = shape.grid;
  features.rows = static_cast<std::size_t>(shape.rows);
  features.hidden = static_cast<std::size_t>(shape.hidden);
  features.content_hash = shape.content_hash;
  features.values.resize(size);
  if (narrow) {
    const auto from = values.as<Bf16>().subspan(at, size);
    std::transform(from.begin(), from.end(), features.values.begin(), bf16_to_f32);
  } else if (size > 0) {
    std::memcpy(features.values.data(), values.as<float>().data() + at, size * sizeof(float));
  }
  at += size;
  return features;
}

}  // namespace

Frame make_submit(const GenerateRequest& request, Clock::time_point now) {
  SubmitMessage message{request.id,         request.prompt,   request.generated,  request.stop_ids,
                        request.max_tokens, request.sampling, request.request_id, {}};
  std::vector<std::span<const float>> values;
  for (const auto& visual : request.visuals) {
    message.visuals.push_back(shape_of(*visual));
    values.emplace_back(visual->values);
  }
  auto frame = make_message(FrameType::kSubmit, message);
  frame.tensors.push_back(pack_values(values));
  frame.trace = request.trace;
  if (request.deadline != Clock::time_point::max()) {
    const auto left =
        std::chrono::duration_cast<std::chrono::microseconds>(request.deadline - now).count();
    frame.budget_us = static_cast<std::uint32_t>(
        std::clamp<std::int64_t>(left, 1, std::int64_t{std::numeric_limits<std::uint32_t>::max()}));
  }
  return frame;
}

Result<GenerateRequest> read_submit(const Frame& frame, Clock::time_point now) {
  MOESAIC_TRY(auto message, transport::read_message<SubmitMessage>(frame));
  if (frame.tensors.size() != 2)
    return fail(Errc::kCorrupt,
                "submission: " + std::to_string(frame.tensors.size()) + " tensors, 2 expected");
  GenerateRequest request;
  request.id = message.id;
  request.prompt = std::move(message.prompt);
  request.generated = std::move(message.generated);
  request.stop_ids = std::move(message.stop_ids);
  request.max_tokens = message.max_tokens;
  request.sampling = message.sampling;
  request.request_id = std::move(message.request_id);
  request.trace = frame.trace;
  if (frame.budget_us > 0) request.deadline = now + std::chrono::microseconds(frame.budget_us);
  std::size_t at = 0;
  for (const auto& shape : message.visuals) {
    MOESAIC_TRY(auto features, unpack(shape, frame.tensors[1], at));
    request.visuals.push_back(std::make_shared<const VisualFeatures>(std::move(features)));
  }
  return request;
}

Frame make_tokens(const TokenEvents& events) {
  TokensMessage message;
  for (const auto& event : events) {
    EventMessage one{event.id, event.tokens, 0, 0, {}};
    if (event.finished) one.finished = static_cast<std::uint8_t>(*event.finished) + 1;
    if (event.error) {
      one.code = static_cast<std::uint8_t>(event.error->code);
      one.what = event.error->what;
    }
    message.events.push_back(std::move(one));
  }
  return make_message(FrameType::kTokens, message);
}

Result<TokenEvents> read_tokens(const Frame& frame) {
  MOESAIC_TRY(auto message, transport::read_message<TokensMessage>(frame));
  TokenEvents events;
  for (auto& one : message.events) {
    if (one.finished > static_cast<std::uint8_t>(FinishReason::kError) + 1)
      return fail(Errc::kCorrupt, "tokens: finish reason " + std::to_string(one.finished));
    TokenEvent event;
    event.id = one.id;
    event.tokens = std::move(one.tokens);
    if (one.finished > 0) event.finished = static_cast<FinishReason>(one.finished - 1);
    if (one.code > 0) event.error = Error{static_cast<Errc>(one.code), std::move(one.what)};
    events.push_back(std::move(event));
  }
  return events;
}

Frame make_cancel(std::uint64_t id) { return make_message(FrameType::kCancel, CancelMessage{id}); }

Result<std::uint64_t> read_cancel(const Frame& frame) {
  MOESAIC_TRY(const auto message, transport::read_message<CancelMessage>(frame));
  return message.id;
}

Frame make_encode(const VisualItem& item) {
  EncodeMessage message{item.video, item.fps, {}};
  std::size_t total = 0;
  for (const auto& file : item.frames) {
    message.frame_bytes.push_back(file->size());
    total += file->size();
  }
  auto frame = make_message(FrameType::kEncode, message);
  frame.trace = item.trace;
  frame.tensors.emplace_back(DType::kU8,
                             std::vector<std::int64_t>{static_cast<std::int64_t>(total)});
  auto* to = frame.tensors.back().bytes.data();
  for (const auto& file : item.frames) {
    std::memcpy(to, file->data(), file->size());
    to += file->size();
  }
  return frame;
}

Result<VisualItem> read_encode(const Frame& frame) {
  MOESAIC_TRY(const auto message, transport::read_message<EncodeMessage>(frame));
  if (frame.tensors.size() != 2 || frame.tensors[1].dtype != DType::kU8)
    return fail(Errc::kCorrupt, "encode: no files in the frame");
  const auto files = frame.tensors[1].as<char>();
  VisualItem item{message.video, message.fps, {}};
  item.trace = frame.trace;
  std::size_t at = 0;
  for (const auto bytes : message.frame_bytes) {
    if (bytes > files.size() - at)
      return fail(Errc::kCorrupt, "encode: a file of " + std::to_string(bytes) + " bytes, " +
                                      std::to_string(files.size() - at) + " are left");
    const auto size = static_cast<std::size_t>(bytes);
    item.frames.push_back(std::make_shared<const std::string>(files.data() + at, size));
    at += size;
  }
  return item;
}

Frame make_features(const VisualFeatures& features) {
  auto frame = make_message(FrameType::kFeatures, shape_of(features));
  const std::span<const float> values(features.values);
  frame.tensors.push_back(pack_values(std::span(&values, 1)));
  return frame;
}

Result<VisualFeatures> read_features(const Frame& frame) {
  MOESAIC_TRY(const auto shape, transport::read_message<VisualShape>(frame));
  if (frame.tensors.size() != 2) return fail(Errc::kCorrupt, "features: no values in the frame");
  std::size_t at = 0;
  return unpack(shape, frame.tensors[1], at);
}

}  // namespace moesaic
