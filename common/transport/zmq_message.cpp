#include "common/transport/zmq_message.hpp"

#include <algorithm>
#include <cstring>
#include <memory>

#include "common/transport/wire.hpp"

namespace moesaic::transport {

Result<zmq::message_t> to_message(const Frame& frame, std::size_t max_bytes) {
  MOESAIC_TRY(const auto size, checked_size(frame, max_bytes));
  zmq::message_t message(size);
  encode(frame, {message.data<std::byte>(), size});
  return message;
}

zmq::message_t taken_message(std::uint64_t frames) {
  zmq::message_t message(kTaken.size() + sizeof frames);
  std::memcpy(message.data(), kTaken.data(), kTaken.size());
  std::memcpy(message.data<char>() + kTaken.size(), &frames, sizeof frames);
  return message;
}

bool send_message(zmq::socket_t& socket, zmq::message_t& message) {
  using zmq::send_flags;
  if (message.size() <= kPartBytes) return socket.send(message, send_flags::dontwait).has_value();
  const auto whole = std::make_shared<zmq::message_t>(std::move(message));
  const auto size = whole->size();
  for (std::size_t at = 0; at < size; at += kPartBytes) {
    const auto bytes = std::min(kPartBytes, size - at);
    // Each part keeps the whole alive until the io thread has sent it.
    zmq::message_t part(
        whole->data<std::byte>() + at, bytes,
        [](void*, void* owner) { delete static_cast<std::shared_ptr<zmq::message_t>*>(owner); },
        new std::shared_ptr<zmq::message_t>(whole));
    const auto flags =
        at + bytes < size ? send_flags::dontwait | send_flags::sndmore : send_flags::dontwait;
    if (socket.send(part, flags)) continue;
    // Only the first part can meet a full queue.
    message = std::move(*whole);
    return false;
  }
  return true;
}

bool ReadMessage::read(zmq::socket_t& socket, bool routed, std::size_t max_bytes) {
  using zmq::recv_flags;
  joined_ = {};
  too_large_ = false;
  if (routed && (!socket.recv(route_, recv_flags::dontwait) || !route_.more())) return false;
  if (!socket.recv(first_, recv_flags::dontwait)) return false;
  in_parts_ = first_.more();
  if (!in_parts_) return true;
  std::size_t parts = 0;
  const auto add = [&](const zmq::message_t& part) {
    too_large_ = too_large_ || part.size() > max_bytes - joined_.size() ||
                 ++parts > max_bytes / kPartBytes + 1;
    const auto* bytes = part.data<std::byte>();
    if (!too_large_) joined_.insert(joined_.end(), bytes, bytes + part.size());
  };
  add(first_);
  zmq::message_t part;
  do {
    if (!socket.recv(part, recv_flags::dontwait)) return false;
    add(part);
  } while (part.more());
  return true;
}

std::optional<std::uint64_t> ReadMessage::taken() const {
  std::uint64_t frames = 0;
  if (in_parts_ || first_.size() != kTaken.size() + sizeof frames ||
      !first_.to_string_view().starts_with(kTaken))
    return std::nullopt;
  std::memcpy(&frames, first_.data<char>() + kTaken.size(), sizeof frames);
  return frames;
}

Result<Frame> ReadMessage::frame() const {
  if (too_large_) return fail(Errc::kTooLarge, "a message over the limit of one frame");
  if (in_parts_) return decode(joined_);
  return decode({first_.data<std::byte>(), first_.size()});
}

}  // namespace moesaic::transport
