#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "common/base/result.hpp"
#include "common/cluster/etcd_gateway.hpp"

namespace moesaic::cluster::etcd {

/// One candidate for leadership: holds a lease and puts the leader's key with it when nobody else
/// has. Leads until a margin before the lease could end by its own clock, whether or not etcd can
/// be asked; the lease counts from when its renewal was sent, so it never ends later than etcd's.
/// One thread, which calls `step` every `interval()` and not later than `leads_until()`.
class Election {
 public:
  using Clock = std::chrono::steady_clock;

  struct Options {
    std::string key;   ///< of the leader
    std::string name;  ///< of this candidate
    unsigned lease_s = 3;
  };
  struct Standing {
    std::uint64_t term = 0;  ///< > 0: we lead; the revision that created the key
    std::string leader;      ///< who leads; empty: not known
    bool operator==(const Standing&) const = default;
  };

  /// @param gateway outlives it
  Election(Options options, Gateway& gateway);

  /// Renews the lease and looks who leads. An error changes `standing` only once our time is up.
  [[nodiscard]] Result<void> step();
  const Standing& standing() const { return standing_; }
  /// When a leader has to stop unless a step renews it first.
  Clock::time_point leads_until() const { return lease_end_ - lease() / 6; }
  std::chrono::milliseconds interval() const { return lease() / 4; }
  /// The lease held, for who gives it back; 0: none.
  std::int64_t lease_id() const { return lease_id_; }

 private:
  std::chrono::milliseconds lease() const { return std::chrono::seconds(lease_s_); }
  Result<void> try_step();
  Result<void> renew(Clock::time_point deadline);
  Result<void> give_up_old(Clock::time_point deadline);
  Result<void> claim(Clock::time_point deadline);

  const Options options_;
  Gateway& gateway_;
  std::int64_t lease_s_;  ///< as granted
  std::int64_t lease_id_ = 0;
  std::int64_t old_lease_ = 0;  ///< led with it, lost sight of it: it must go before the next claim
  Clock::time_point lease_end_{};
  Standing standing_;
};

}  // namespace moesaic::cluster::etcd
