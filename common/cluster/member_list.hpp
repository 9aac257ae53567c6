#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/base/result.hpp"
#include "common/cluster/view.hpp"
#include "common/transport/endpoint.hpp"

namespace moesaic::cluster {

/// The registered members and their leases: who is alive, in which life, on which connection. A
/// plain value, time is given.
class MemberList {
 public:
  using Clock = std::chrono::steady_clock;

  struct Entry {
    MemberState state;           ///< `alive`: connected, and its lease is valid
    transport::PeerId peer = 0;  ///< 0: no connection
    Clock::time_point heard{};   ///< last sign of life
    Clock::time_point lost{};    ///< since when not alive
    bool drained = false;        ///< we have told this life to drain
    std::uint64_t adopted = 0;   ///< version of the view it works with
    std::uint32_t asked = 0;     ///< epoch of the last kPrepare on this connection; 0: none
    Clock::time_point asked_at{};
    bool release_due = false;  ///< kRelease has to be sent
    std::string failure;       ///< why it could not prepare
  };
  using Key = std::pair<std::string, std::string>;  ///< role, name

  /// What every member is compared with.
  struct Ours {
    std::string name;  ///< of the router, for texts
    std::string model_hash;
    std::string version;
    std::uint16_t wire_version = 0;
  };

  struct Joined {
    Entry* entry = nullptr;
    bool new_life = false;  ///< it was not known, or in another life
  };

  explicit MemberList(Ours ours) : ours_(std::move(ours)) {}

  /// Registers a member, or renews what is known of it.
  /// @errors kInvalidArgument: role, name; kUnsupported: model, version, wire version;
  /// kUnavailable: another of this name is alive, or this life is over; kOverloaded: too many.
  /// Texts name both sides
  [[nodiscard]] Result<Joined> join(transport::PeerId peer, const Member& member,
                                    Clock::time_point now);
  /// A heartbeat.
  /// @return null: nobody has registered there
  Entry* heard(transport::PeerId peer, Load load, Clock::time_point now);
  /// The connection is gone.
  Entry* closed(transport::PeerId peer, Clock::time_point now);
  /// Ends leases not renewed for `lease`, forgets members lost for `forget`.
  /// @return those whose lease has ended now
  std::vector<Key> expire(Clock::time_point now, std::chrono::milliseconds lease,
                          std::chrono::milliseconds forget);

  Entry* at(transport::PeerId peer);
  Entry* find(const std::string& role, const std::string& name);
  std::map<Key, Entry>& all() { return entries_; }
  const std::map<Key, Entry>& all() const { return entries_; }

 private:
  Result<void> check(const Member& member) const;

  Ours ours_;
  std::map<Key, Entry> entries_;
};

/// `expert-shard "s0"`
std::string member_text(const Member& member);

}  // namespace moesaic::cluster
