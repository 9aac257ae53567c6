#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/transport/carrier.hpp"

namespace moesaic::transport {

/// Who speaks. Both sides tell it before anything else and check it.
struct Identity {
  std::string role;  ///< "gateway", "vision-encoder", "router", "expert-shard", "decoder", "tool"
  std::string name;  ///< unique within the role, at most 64 of [a-z0-9.-]
  std::uint32_t incarnation = 0;  ///< higher in each life of the same name
  std::string model_hash;         ///< of config and compute mode; empty: any (tools)
  std::string version;            ///< of the program, for texts
  std::string host;               ///< boot id: same host, same text

  /// FNV-1a-64 of "role/name": what frames carry.
  std::uint64_t id() const;
};

/// The other end of a connection; numbered from 1, never reused.
using PeerId = std::uint32_t;

struct Event {
  enum class Kind : std::uint8_t {
    kUp,    ///< the peer said who it is and may be asked
    kDown,  ///< it has gone, or was refused; a connector's peer may come up again
    kFrame,
    kWoken,  ///< by `wake`
  };
  Kind kind{};
  PeerId peer = 0;
  Frame frame{};
  std::string detail{};  ///< kDown: why
  Identity identity{};   ///< kUp: who it is
};

struct EndpointConfig {
  Identity self;
  /// Roles that may connect to us; empty: any.
  std::vector<std::string> accepted_roles;
  /// Questions one connector may have open; told in kWelcome.
  std::uint16_t credits = 64;
};

/// One thread's place in the data or control plane: it connects to others, listens for others, and
/// sends and receives frames. On top of a Carrier it adds who is who (kHello and kWelcome: role,
/// model hash, wire version, incarnation; what does not fit is refused with one line that names
/// both sides), credits (a connector's `send` of a question fails with kOverloaded when as many are
/// unanswered as the listener grants), and staleness (frames of an older incarnation of a peer are
/// answered kStale and dropped). All members but `wake` are called on one thread.
class Endpoint {
 public:
  /// @param carrier owned
  Endpoint(EndpointConfig config, std::unique_ptr<Carrier> carrier);
  ~Endpoint();
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;

  [[nodiscard]] Result<Address> listen(const Address& address);
  /// kUp follows when the peer is there; tried until `close`.
  [[nodiscard]] Result<PeerId> connect(const Address& address);
  void close(PeerId peer);

  /// @errors kUnavailable: not up; kOverloaded: no credit or a full queue; kTooLarge
  [[nodiscard]] Result<void> send(PeerId peer, Frame frame);
  /// @errors kDeadlineExceeded
  [[nodiscard]] Result<Event> receive(std::chrono::steady_clock::time_point deadline);
  /// Makes one `receive` return kWoken; any thread.
  void wake();

  /// Null unless the peer is up.
  const Identity* identity(PeerId peer) const;
  const EndpointConfig& config() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moesaic::transport
