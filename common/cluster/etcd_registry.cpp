#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "common/base/log.hpp"
#include "common/cluster/etcd_election.hpp"
#include "common/cluster/etcd_gateway.hpp"
#include "common/cluster/etcd_messages.hpp"
#include "common/cluster/registry.hpp"

namespace moesaic::cluster {
namespace {

using namespace etcd;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kPause{200};        // after a failure
constexpr std::chrono::milliseconds kStoreTime{2'000};  // of one `store`
constexpr std::chrono::milliseconds kGoodbyeTime{1'000};

/// For one endpoint. A fifth of the lease: two silent endpoints do not cost the lead.
std::chrono::milliseconds patience(unsigned lease_s) {
  return std::max(std::chrono::milliseconds(std::chrono::seconds(lease_s)) / 5,
                  std::chrono::milliseconds{200});
}

/// Two threads: one holds the lease and tells who leads, one watches the keys. Each has its own
/// connection; so has `store`.
class EtcdRegistry final : public Registry {
 public:
  explicit EtcdRegistry(EtcdOptions options)
      : options_(std::move(options)),
        leader_key_(options_.prefix + "leader"),
        placement_key_(options_.prefix + "placement"),
        election_gateway_(options_.endpoints, patience(options_.lease_seconds)),
        watch_gateway_(options_.endpoints, patience(options_.lease_seconds)),
        store_gateway_(options_.endpoints, patience(options_.lease_seconds)),
        election_({leader_key_, options_.name, options_.lease_seconds}, election_gateway_) {}
  ~EtcdRegistry() override { EtcdRegistry::stop(); }

  void start(std::function<void(RegistryEvent)> on_event) override {
    on_event_ = std::move(on_event);
    election_thread_ = std::thread([this] { elect(); });
    watch_thread_ = std::thread([this] { watch(); });
  }

  Result<void> store(std::uint64_t term, std::uint32_t epoch, const std::string& yaml) override {
    {
      const std::lock_guard lock(mutex_);
      if (term == 0 || term != told_.term || Clock::now() >= leads_until_) {
        return fail(Errc::kUnavailable, "registry: " + options_.name + " does not lead in term " +
                                            std::to_string(term));
      }
    }
    const std::lock_guard lock(store_mutex_);
    auto result = put({epoch, term, yaml}, Clock::now() + kStoreTime);
    if (result || result.error().code == Errc::kInvalidArgument) return result;
    return fail(Errc::kUnavailable, std::move(result.error().what));
  }

  void stop() override {
    std::call_once(stopped_, [this] {
      {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
      }
      wake_.notify_all();
      for (auto* gateway : {&election_gateway_, &watch_gateway_, &store_gateway_}) {
        gateway->cancel();
      }
      if (election_thread_.joinable()) election_thread_.join();
      if (watch_thread_.joinable()) watch_thread_.join();
      if (election_.lease_id() == 0) return;
      Gateway goodbye(options_.endpoints, kGoodbyeTime);
      if (const auto gone = goodbye.post("/v3/lease/revoke", lease_request(election_.lease_id()),
                                         Clock::now() + kGoodbyeTime);
          !gone) {
        log(LogLevel::kWarn, "registry: the lease was not given back: " + gone.error().what);
      }
    });
  }

 private:
  void elect() {
    std::string trouble;
    for (;;) {
      auto result = election_.step();
      if (result && election_.standing().term != 0) result = read_before_leading();
      note(trouble, result);
      tell_standing(result.has_value());
      auto until = Clock::now() + (result ? election_.interval() : kPause);
      if (election_.standing().term != 0) until = std::min(until, election_.leads_until());
      std::unique_lock lock(mutex_);
      wake_.wait_until(lock, until, [&] { return stopping_ || leader_changed_; });
      if (stopping_) return;
      leader_changed_ = false;
    }
  }

  /// A new leader knows the stored placement before it is told that it leads.
  Result<void> read_before_leading() {
    if (election_.standing() == told_) return {};
    MOESAIC_TRY(const auto text,
                election_gateway_.post("/v3/kv/range", range_request(options_.prefix),
                                       election_.leads_until()));
    MOESAIC_TRY(const auto range, parse_range(text));
    for (const auto& entry : range.found) learn(entry);
    return {};
  }

  /// @param complete false: what is needed to lead is not known, but the loss of the lead is told
  void tell_standing(bool complete) {
    const auto& standing = election_.standing();
    {
      const std::lock_guard lock(mutex_);
      leads_until_ = election_.leads_until();
      if (told_once_ && standing == told_) return;
      if (!complete && standing.term != 0) return;
      told_ = standing;
      told_once_ = true;
    }
    RegistryEvent event;
    const bool leads = standing.term != 0;
    event.kind = leads ? RegistryEvent::Kind::kLeading : RegistryEvent::Kind::kFollowing;
    event.term = standing.term;
    event.leader = standing.leader;
    tell(std::move(event));
  }

  void watch() {
    std::string trouble;
    const auto silence = std::chrono::seconds(options_.lease_seconds);
    for (;;) {
      const auto result = watch_once(silence);
      // Silence is ordinary: nothing changed, or the way to etcd is cut. Reading tells.
      const bool quiet = !result && result.error().code == Errc::kDeadlineExceeded;
      if (!quiet) note(trouble, result);
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, quiet ? std::chrono::milliseconds{0} : kPause,
                     [&] { return stopping_; });
      if (stopping_) return;
    }
  }

  /// Reads everything, then follows its changes without a gap until the stream ends.
  Result<void> watch_once(std::chrono::milliseconds silence) {
    MOESAIC_TRY(const auto text, watch_gateway_.post("/v3/kv/range", range_request(options_.prefix),
                                                     Clock::now() + silence));
    MOESAIC_TRY(const auto range, parse_range(text));
    for (const auto& entry : range.found) learn(entry);
    Result<void> broken;
    MOESAIC_CHECK(watch_gateway_.follow("/v3/watch",
                                        watch_request(options_.prefix, range.revision + 1), silence,
                                        [&](std::string_view line) {
                                          const auto news = parse_watch_line(line);
                                          if (!news) {
                                            broken = tl::make_unexpected(news.error());
                                            return false;
                                          }
                                          for (const auto& entry : news->events) learn(entry);
                                          return !news->canceled;
                                        }));
    return broken;
  }

  /// One key as it is now. Both threads learn; what is older than what was learnt is dropped.
  void learn(const KeyValue& entry) {
    if (entry.key == leader_key_) {
      const std::lock_guard lock(mutex_);
      if (entry.mod_revision <= leader_revision_) return;
      leader_revision_ = entry.mod_revision;
      leader_changed_ = true;
      wake_.notify_all();
      return;
    }
    if (entry.key != placement_key_ || entry.deleted) return;
    const std::lock_guard lock(learn_mutex_);
    if (entry.mod_revision <= placement_revision_) return;
    placement_revision_ = entry.mod_revision;
    auto stored = parse_stored_placement(entry.value);
    if (!stored) {
      log(LogLevel::kError, "registry: " + placement_key_ + ": " + stored.error().what);
      return;
    }
    RegistryEvent event;
    event.kind = RegistryEvent::Kind::kPlacement;
    event.term = stored->term;
    event.epoch = stored->epoch;
    event.yaml = std::move(stored->yaml);
    tell(std::move(event));
  }

  Result<void> put(const StoredPlacement& placement, Clock::time_point deadline) {
    const auto value = format_stored_placement(placement);
    std::int64_t known_revision = 0;
    for (;;) {
      MOESAIC_TRY(const auto text,
                  store_gateway_.post(
                      "/v3/kv/txn",
                      guarded_put_request(placement_key_, value, known_revision, leader_key_,
                                          static_cast<std::int64_t>(placement.term)),
                      deadline));
      MOESAIC_TRY(const auto answer, parse_txn(text));
      if (answer.succeeded) return {};
      const auto* leader = answer.find(leader_key_);
      if (leader == nullptr || std::cmp_not_equal(leader->create_revision, placement.term)) {
        return fail(Errc::kUnavailable,
                    "registry: term " + std::to_string(placement.term) + " is over; " +
                        (leader == nullptr ? "nobody leads" : leader->value + " leads"));
      }
      const auto* stored = answer.find(placement_key_);
      // An endpoint that broke off may have stored it all the same.
      if (stored != nullptr && stored->value == value) return {};
      MOESAIC_CHECK(check_epoch(placement.epoch, stored));
      known_revision = stored == nullptr ? 0 : stored->mod_revision;
    }
  }

  static Result<void> check_epoch(std::uint32_t epoch, const KeyValue* stored) {
    if (stored == nullptr) return {};
    const auto placement = parse_stored_placement(stored->value);
    if (!placement || placement->epoch < epoch) return {};
    return fail(Errc::kInvalidArgument, "registry: placement of epoch " + std::to_string(epoch) +
                                            ", but epoch " + std::to_string(placement->epoch) +
                                            " is stored");
  }

  /// One event at a time.
  void tell(RegistryEvent event) {
    const std::lock_guard lock(tell_mutex_);
    on_event_(std::move(event));
  }

  /// Logs when trouble begins and ends, not each time.
  void note(std::string& trouble, const Result<void>& result) {
    const auto now = result ? std::string() : result.error().what;
    if (!result && result.error().code == Errc::kCancelled) return;
    if (now.empty() != trouble.empty()) {
      log(now.empty() ? LogLevel::kInfo : LogLevel::kWarn,
          "registry: " + (now.empty() ? "etcd answers again" : now));
    }
    trouble = now;
  }

  const EtcdOptions options_;
  const std::string leader_key_;
  const std::string placement_key_;
  Gateway election_gateway_;
  Gateway watch_gateway_;
  Gateway store_gateway_;
  Election election_;  ///< on the election thread; read by `stop` after its end
  std::function<void(RegistryEvent)> on_event_;
  std::once_flag stopped_;

  std::mutex tell_mutex_;
  std::mutex store_mutex_;
  std::mutex learn_mutex_;  ///< taken before tell_mutex_
  std::int64_t placement_revision_ = 0;

  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  bool leader_changed_ = false;
  std::int64_t leader_revision_ = 0;
  Election::Standing told_;  ///< written on the election thread
  bool told_once_ = false;
  Clock::time_point leads_until_{};

  std::thread election_thread_;
  std::thread watch_thread_;
};

}  // namespace

std::unique_ptr<Registry> make_etcd_registry(EtcdOptions options) {
  return std::make_unique<EtcdRegistry>(std::move(options));
}

}  // namespace moesaic::cluster
