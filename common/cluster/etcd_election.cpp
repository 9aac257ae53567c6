#include "common/cluster/etcd_election.hpp"

#include <utility>

#include "common/cluster/etcd_messages.hpp"

namespace moesaic::cluster::etcd {

Election::Election(Options options, Gateway& gateway)
    : options_(std::move(options)), gateway_(gateway), lease_s_(options_.lease_s) {}

Result<void> Election::step() {
  auto result = try_step();
  if (Clock::now() >= leads_until()) {
    // A later term must be a larger one: the key we may still have is not taken up again.
    if (standing_.term != 0) old_lease_ = std::exchange(lease_id_, 0);
    standing_ = {};
  }
  return result;
}

Result<void> Election::try_step() {
  const auto deadline = standing_.term != 0 ? leads_until() : Clock::now() + lease();
  if (old_lease_ != 0) MOESAIC_CHECK(give_up_old(deadline));
  MOESAIC_CHECK(renew(deadline));
  return claim(deadline);
}

Result<void> Election::give_up_old(Clock::time_point deadline) {
  // That it does not exist any more is an error of etcd's, and as good.
  MOESAIC_TRY(const auto text,
              gateway_.post("/v3/lease/revoke", lease_request(old_lease_), deadline));
  old_lease_ = 0;
  return {};
}

Result<void> Election::renew(Clock::time_point deadline) {
  const auto asked = Clock::now();
  if (lease_id_ != 0) {
    MOESAIC_TRY(const auto text,
                gateway_.post("/v3/lease/keepalive", lease_request(lease_id_), deadline));
    MOESAIC_TRY(const auto kept, parse_keepalive(text));
    if (kept.ttl_s > 0) {
      lease_end_ = asked + std::chrono::seconds(kept.ttl_s);
      return {};
    }
    lease_id_ = 0;
    standing_ = {};
  }
  MOESAIC_TRY(const auto text,
              gateway_.post("/v3/lease/grant", grant_request(options_.lease_s), deadline));
  MOESAIC_TRY(const auto granted, parse_grant(text));
  lease_id_ = granted.id;
  lease_s_ = granted.ttl_s;
  lease_end_ = asked + std::chrono::seconds(granted.ttl_s);
  return {};
}

Result<void> Election::claim(Clock::time_point deadline) {
  MOESAIC_TRY(
      const auto text,
      gateway_.post("/v3/kv/txn", claim_request(options_.key, options_.name, lease_id_), deadline));
  MOESAIC_TRY(const auto answer, parse_txn(text));
  if (answer.succeeded) {
    standing_ = {static_cast<std::uint64_t>(answer.revision), options_.name};
    return {};
  }
  const auto* owner = answer.find(options_.key);
  if (owner == nullptr)
    return fail(Errc::kCorrupt, "etcd: the leader's key is neither free nor taken");
  const bool ours = owner->lease == lease_id_;
  standing_ = {ours ? static_cast<std::uint64_t>(owner->create_revision) : 0, owner->value};
  return {};
}

}  // namespace moesaic::cluster::etcd
