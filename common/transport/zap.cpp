#include "common/transport/zap.hpp"

#include <array>
#include <string>
#include <utility>
#include <zmq.hpp>

namespace moesaic::transport {
namespace {

constexpr const char* kZapEndpoint = "inproc://zeromq.zap.01";

// Frames of a request, after the router's own.
enum Part : std::size_t {
  kDelimiter,
  kVersion,
  kSequence,
  kDomain,
  kPeerAddress,
  kPeerIdentity,
  kMechanism,
  kCredentials,
  kParts
};

/// The client's public key as text; empty if the request is not about CURVE in our domain.
std::string asked_key(const std::array<zmq::message_t, kParts>& parts) {
  constexpr std::size_t kBinaryKey = 32;
  if (parts[kVersion].to_string_view() != "1.0" || parts[kDomain].to_string_view() != kZapDomain ||
      parts[kMechanism].to_string_view() != "CURVE" || parts[kCredentials].size() != kBinaryKey)
    return {};
  std::array<char, 41> text{};
  ::zmq_z85_encode(text.data(), parts[kCredentials].data<std::uint8_t>(), kBinaryKey);
  return text.data();
}

void answer_one(zmq::socket_t& socket, const KeyRing& keys) {
  std::array<zmq::message_t, kParts> parts;
  zmq::message_t who;
  std::size_t count = 0;
  if (!socket.recv(who)) return;
  for (bool more = who.more(); more;) {
    zmq::message_t part;
    if (!socket.recv(part)) return;
    more = part.more();
    if (count < kParts) parts[count] = std::move(part);
    ++count;
  }
  if (count < kSequence + 1) return;
  const auto key = asked_key(parts);
  const auto user = key.empty() ? std::string() : keys.owner_of(key);
  const auto part = [&](std::string_view text) {
    socket.send(zmq::buffer(text), zmq::send_flags::sndmore);
  };
  socket.send(who, zmq::send_flags::sndmore);
  part("");
  part("1.0");
  socket.send(parts[kSequence], zmq::send_flags::sndmore);
  part(!user.empty() ? "200" : "400");
  part(!user.empty() ? "OK" : "unknown key");
  part(user);
  socket.send(zmq::message_t(), zmq::send_flags::none);
}

void serve(zmq::socket_t& socket, const KeyRing& keys) {
  while (true) {
    try {
      answer_one(socket, keys);
    } catch (const zmq::error_t& error) {
      if (error.num() == ETERM) return;  // the context is being shut down
    }
  }
}

}  // namespace

ZapHandler::ZapHandler(zmq::context_t& context, std::shared_ptr<const KeyRing> keys) {
  zmq::socket_t socket(context, zmq::socket_type::router);
  socket.set(zmq::sockopt::linger, 0);
  socket.bind(kZapEndpoint);
  thread_ = std::jthread([socket = std::move(socket), keys = std::move(keys)]() mutable {
    serve(socket, *keys);
    socket.close();
  });
}

}  // namespace moesaic::transport
