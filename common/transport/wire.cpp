#include "common/transport/wire.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstring>
#include <limits>
#include <string>

namespace moesaic::transport {
namespace {

static_assert(std::endian::native == std::endian::little, "the wire is little-endian");

struct Envelope {
  std::uint32_t magic;
  std::uint16_t version;
  std::uint16_t type;
  std::uint32_t flags;
  std::uint32_t epoch;
  std::uint64_t sender;
  std::uint32_t incarnation;
  std::uint16_t attempt;
  std::uint16_t tensors;
  RequestId request;
  std::uint64_t sequence;
  std::uint32_t budget_us;
  std::uint32_t body_bytes;
  std::uint32_t body_crc;
  std::uint32_t header_crc;  // of all before it
};
static_assert(sizeof(Envelope) == kEnvelopeBytes);
constexpr std::size_t kHeaderCrcBytes = kEnvelopeBytes - sizeof(std::uint32_t);

constexpr std::uint32_t kFlagTraced = 1;
constexpr unsigned kCodeShift = 8;
constexpr std::uint32_t kFlagsKnown = kFlagTraced | 0xffU << kCodeShift;

struct TraceBlock {
  std::array<std::uint8_t, 16> trace_id;
  std::array<std::uint8_t, 8> span_id;
  std::uint8_t sampled;
  std::array<std::uint8_t, 7> pad;
};
static_assert(sizeof(TraceBlock) == 32);

struct Descriptor {
  std::uint8_t dtype;
  std::uint8_t rank;
  std::uint16_t layer;
  std::uint8_t modality;
  std::uint8_t zero;
  std::uint16_t zeros;
  std::array<std::uint32_t, kMaxRank> dims;
  std::uint64_t bytes;
};
static_assert(sizeof(Descriptor) == 32);

constexpr std::size_t kHeadBytes =
    sizeof(Envelope) + sizeof(TraceBlock) + kMaxTensors * sizeof(Descriptor);
constexpr std::size_t kAlign = 64;

constexpr std::size_t aligned(std::size_t offset) {
  return (offset + kAlign - 1) / kAlign * kAlign;
}

std::size_t tensor_bytes(const Tensor& tensor) {
  return tensor.elements() * dtype_bytes(tensor.dtype);
}

/// Bytes in front of the first tensor, without the gap.
std::size_t head_bytes(bool traced, std::size_t tensors) {
  return sizeof(Envelope) + (traced ? sizeof(TraceBlock) : 0) + tensors * sizeof(Descriptor);
}

std::string number(std::size_t value) { return std::to_string(value); }

tl::unexpected<Error> corrupt(const std::string& what) {
  return fail(Errc::kCorrupt, "frame: " + what);
}

Result<void> check_envelope(const Envelope& envelope, std::size_t bytes) {
  if (envelope.magic != kMagic) return corrupt("magic " + number(envelope.magic));
  if (envelope.version < kOldestWireVersion || envelope.version > kWireVersion)
    return fail(Errc::kUnsupported, "frame of wire version " + number(envelope.version) +
                                        ", versions " + number(kOldestWireVersion) + " to " +
                                        number(kWireVersion) + " are spoken here");
  std::array<std::byte, kHeaderCrcBytes> checked;
  std::memcpy(checked.data(), &envelope, checked.size());
  if (crc32c(checked) != envelope.header_crc) return corrupt("checksum of the header differs");
  if (envelope.body_bytes != bytes - kEnvelopeBytes)
    return corrupt(number(bytes) + " bytes, " + number(kEnvelopeBytes) + " + " +
                   number(envelope.body_bytes) + " expected");
  if ((envelope.flags & ~kFlagsKnown) != 0) return corrupt("flags " + number(envelope.flags));
  if (envelope.tensors > kMaxTensors)
    return corrupt(number(envelope.tensors) + " tensors, at most " + number(kMaxTensors));
  return {};
}

/// @param limit bytes of the frame: no tensor has more
Result<void> check_descriptor(const Descriptor& it, const Descriptor& first, std::size_t limit) {
  if (it.dtype > static_cast<std::uint8_t>(DType::kU16))
    return corrupt("element type " + number(it.dtype));
  if (it.rank > kMaxRank) return corrupt("rank " + number(it.rank));
  if (it.zero != 0 || it.zeros != 0 || it.layer != first.layer || it.modality != first.modality)
    return corrupt("descriptors that disagree");
  std::size_t elements = 1;
  for (std::size_t d = 0; d < kMaxRank; ++d) {
    const std::size_t dim = it.dims[d];
    if (d >= it.rank) {
      if (dim != 0) return corrupt("dimensions past the rank");
    } else if (dim != 0 && elements > limit / dim) {
      return corrupt("a tensor larger than the frame's " + number(limit) + " bytes");
    } else {
      elements *= dim;
    }
  }
  const auto bytes = elements * dtype_bytes(static_cast<DType>(it.dtype));
  if (it.bytes != bytes)
    return corrupt("a tensor of " + number(it.bytes) + " bytes, " + number(bytes) + " expected");
  return {};
}

/// The parts before the first tensor, in memory of our own.
struct Head {
  Envelope envelope;
  TraceBlock trace;
  std::array<Descriptor, kMaxTensors> descriptors;
  std::size_t bytes = 0;
};

Result<void> read_head(std::span<const std::byte> bytes, Head& head) {
  if (bytes.size() < kEnvelopeBytes)
    return corrupt(number(bytes.size()) + " bytes, at least " + number(kEnvelopeBytes));
  std::memcpy(&head.envelope, bytes.data(), kEnvelopeBytes);
  MOESAIC_CHECK(check_envelope(head.envelope, bytes.size()));
  const bool traced = (head.envelope.flags & kFlagTraced) != 0;
  const std::size_t tensors = head.envelope.tensors;
  head.bytes = head_bytes(traced, tensors);
  if (bytes.size() < head.bytes)
    return corrupt(number(bytes.size()) + " bytes for " + number(tensors) + " descriptors");
  std::array<std::byte, kHeadBytes> copy;
  const auto rest = std::span(copy).first(head.bytes - kEnvelopeBytes);
  std::memcpy(rest.data(), bytes.data() + kEnvelopeBytes, rest.size());
  const auto* at = rest.data();
  if (traced) {
    std::memcpy(&head.trace, at, sizeof head.trace);
    at += sizeof head.trace;
  }
  std::memcpy(head.descriptors.data(), at, tensors * sizeof(Descriptor));
  std::size_t end = head.bytes;
  for (std::size_t i = 0; i < tensors; ++i) {
    const auto& it = head.descriptors[i];
    MOESAIC_CHECK(check_descriptor(it, head.descriptors[0], bytes.size()));
    end = aligned(end) + static_cast<std::size_t>(it.bytes);  // both far below 2^63
  }
  if (end != bytes.size())
    return corrupt(number(bytes.size()) + " bytes, its tensors end at " + number(end));
  return {};
}

}  // namespace

std::size_t encoded_size(const Frame& frame) {
  std::size_t end = head_bytes(frame.trace.valid(), frame.tensors.size());
  for (const auto& tensor : frame.tensors) end = aligned(end) + tensor_bytes(tensor);
  return end;
}

Result<std::size_t> checked_size(const Frame& frame, std::size_t limit) {
  if (frame.tensors.size() > kMaxTensors)
    return fail(Errc::kTooLarge, "frame of " + number(frame.tensors.size()) + " tensors, at most " +
                                     number(kMaxTensors));
  limit = std::min<std::size_t>(limit, std::numeric_limits<std::uint32_t>::max());
  for (const auto& tensor : frame.tensors) {
    if (tensor.shape.size() > kMaxRank)
      return fail(Errc::kTooLarge, "frame with a tensor of rank " + number(tensor.shape.size()));
    for (const auto dim : tensor.shape)
      if (dim < 0 || dim > std::int64_t{std::numeric_limits<std::uint32_t>::max()})
        return fail(Errc::kTooLarge, "frame with a tensor dimension of " + std::to_string(dim));
    assert(tensor.bytes.size() >= tensor_bytes(tensor));
  }
  const auto bytes = encoded_size(frame);
  if (bytes > limit)
    return fail(Errc::kTooLarge, "frame of " + number(bytes) + " bytes, at most " + number(limit));
  return bytes;
}

void encode(const Frame& frame, std::span<std::byte> out) {
  assert(out.size() == encoded_size(frame) && frame.tensors.size() <= kMaxTensors);
  const bool traced = frame.trace.valid();
  auto* at = out.data() + kEnvelopeBytes;
  if (traced) {
    const TraceBlock block{frame.trace.trace_id,
                           frame.trace.span_id,
                           static_cast<std::uint8_t>(frame.trace.sampled),
                           {}};
    std::memcpy(at, &block, sizeof block);
    at += sizeof block;
  }
  for (const auto& tensor : frame.tensors) {
    Descriptor it{};
    it.dtype = static_cast<std::uint8_t>(tensor.dtype);
    it.rank = static_cast<std::uint8_t>(tensor.shape.size());
    it.layer = frame.layer;
    it.modality = frame.modality;
    std::transform(tensor.shape.begin(), tensor.shape.end(), it.dims.begin(),
                   [](std::int64_t dim) { return static_cast<std::uint32_t>(dim); });
    it.bytes = tensor_bytes(tensor);
    std::memcpy(at, &it, sizeof it);
    at += sizeof it;
  }
  auto offset = static_cast<std::size_t>(at - out.data());
  for (const auto& tensor : frame.tensors) {
    const auto start = aligned(offset);
    std::memset(out.data() + offset, 0, start - offset);
    const auto bytes = tensor_bytes(tensor);
    if (bytes > 0) std::memcpy(out.data() + start, tensor.bytes.data(), bytes);
    offset = start + bytes;
  }
  Envelope envelope{};
  envelope.magic = kMagic;
  envelope.version = kWireVersion;
  envelope.type = static_cast<std::uint16_t>(frame.type);
  envelope.flags = (traced ? kFlagTraced : 0) | std::uint32_t{frame.code} << kCodeShift;
  envelope.epoch = frame.epoch;
  envelope.sender = frame.sender;
  envelope.incarnation = frame.incarnation;
  envelope.attempt = frame.attempt;
  envelope.tensors = static_cast<std::uint16_t>(frame.tensors.size());
  envelope.request = frame.request;
  envelope.sequence = frame.sequence;
  envelope.budget_us = frame.budget_us;
  envelope.body_bytes = static_cast<std::uint32_t>(out.size() - kEnvelopeBytes);
  envelope.body_crc = crc32c(out.subspan(kEnvelopeBytes));
  std::memcpy(out.data(), &envelope, kHeaderCrcBytes);
  envelope.header_crc = crc32c(out.first(kHeaderCrcBytes));
  std::memcpy(out.data() + kHeaderCrcBytes, &envelope.header_crc, sizeof envelope.header_crc);
}

Result<Frame> decode(std::span<const std::byte> bytes) {
  Head head;
  MOESAIC_CHECK(read_head(bytes, head));
  const auto& envelope = head.envelope;
  if (crc32c(bytes.subspan(kEnvelopeBytes)) != envelope.body_crc)
    return corrupt("checksum of the body differs");
  Result<Frame> result;
  auto& frame = *result;
  frame.tensors.reserve(envelope.tensors);
  auto offset = head.bytes;
  for (std::size_t i = 0; i < envelope.tensors; ++i) {
    const auto& it = head.descriptors[i];
    const auto size = static_cast<std::size_t>(it.bytes);
    auto& tensor = frame.tensors.emplace_back();
    tensor.dtype = static_cast<DType>(it.dtype);
    tensor.shape.assign(it.dims.begin(), it.dims.begin() + it.rank);
    tensor.bytes = AlignedBuffer::uninitialized(size);
    const auto start = aligned(offset);
    if (size > 0) std::memcpy(tensor.bytes.data(), bytes.data() + start, size);
    offset = start + size;
  }
  frame.type = static_cast<FrameType>(envelope.type);
  frame.code = static_cast<std::uint8_t>(envelope.flags >> kCodeShift);
  frame.epoch = envelope.epoch;
  frame.sender = envelope.sender;
  frame.incarnation = envelope.incarnation;
  frame.attempt = envelope.attempt;
  frame.request = envelope.request;
  frame.sequence = envelope.sequence;
  frame.budget_us = envelope.budget_us;
  if (envelope.tensors > 0) {
    frame.layer = head.descriptors[0].layer;
    frame.modality = head.descriptors[0].modality;
  }
  if ((envelope.flags & kFlagTraced) != 0)
    frame.trace = {head.trace.trace_id, head.trace.span_id, (head.trace.sampled & 1) != 0};
  return result;
}

}  // namespace moesaic::transport
