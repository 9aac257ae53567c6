#include "actors/supervisor/shard_prober.hpp"

#include "common/cluster/reach.hpp"

namespace moesaic {
namespace {

constexpr std::chrono::milliseconds kProbeEvery{250};
constexpr std::chrono::milliseconds kAnswerValid{1500};

}  // namespace

ShardProber::ShardProber(std::unique_ptr<transport::Endpoint> endpoint, std::string host)
    : host_(std::move(host)),
      link_(std::make_unique<transport::Link>(
          std::move(endpoint),
          [this](transport::Endpoint&, const transport::Event& event) { take(event); })),
      ticker_(std::make_unique<Ticker>(kProbeEvery, [this] { tick(); })) {}

void ShardProber::set_view(std::shared_ptr<const cluster::View> view) {
  {
    const std::lock_guard lock(mutex_);
    view_ = std::move(view);
  }
  // A link that takes no more work is about to be destroyed.
  static_cast<void>(link_->post([this](transport::Endpoint& endpoint) { adopt(endpoint); }));
}

void ShardProber::adopt(transport::Endpoint& endpoint) {
  const std::lock_guard lock(mutex_);
  for (auto it = shards_.begin(); it != shards_.end();) {
    if (view_->find("expert-shard", it->first) != nullptr) {
      ++it;
    } else {
      endpoint.close(it->second.peer);
      it = shards_.erase(it);
    }
  }
  for (const auto& seen : view_->members) {
    if (seen.member.role != "expert-shard") continue;
    const auto addresses = cluster::reachable_addresses(seen.member, host_);
    if (addresses.empty()) continue;
    const auto address = to_string(addresses.front()) + " " + addresses.front().server_key;
    auto& shard = shards_[seen.member.name];
    if (shard.address == address) continue;
    if (shard.peer != 0) endpoint.close(shard.peer);
    const auto peer = endpoint.connect(addresses.front());
    shard = {address, peer.value_or(0), {}};
  }
}

void ShardProber::tick() {
  static_cast<void>(link_->post([this](transport::Endpoint& endpoint) {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, shard] : shards_) {
      transport::Frame probe;
      probe.type = transport::FrameType::kProbe;
      // One that cannot be sent is not answered either.
      if (endpoint.identity(shard.peer) != nullptr)
        static_cast<void>(endpoint.send(shard.peer, std::move(probe)));
    }
  }));
}

void ShardProber::take(const transport::Event& event) {
  const std::lock_guard lock(mutex_);
  for (auto& [name, shard] : shards_) {
    if (shard.peer != event.peer) continue;
    if (event.kind == transport::Event::Kind::kDown) shard.answered = {};
    if (event.kind == transport::Event::Kind::kFrame &&
        event.frame.type == transport::FrameType::kProbed)
      shard.answered = Clock::now();
  }
}

std::optional<std::string> ShardProber::missing() const {
  const std::lock_guard lock(mutex_);
  if (!view_ || view_->placement.epoch == 0) return "no placement yet";
  const auto& table = view_->placement;
  const auto now = Clock::now();
  cluster::ShardSet there = 0;
  std::string silent;
  for (std::size_t i = 0; i < table.shards.size(); ++i) {
    const auto it = shards_.find(table.shards[i]);
    if (it != shards_.end() && now - it->second.answered < kAnswerValid) {
      there |= cluster::ShardSet{1} << i;
    } else {
      silent += (silent.empty() ? "" : ", ") + table.shards[i];
    }
  }
  std::size_t homeless = 0;
  for (const auto owners : table.owners)
    if (owners != 0 && (owners & there) == 0) ++homeless;
  if (homeless == 0) return {};
  return std::to_string(homeless) + " experts have no shard that answers; silent: " + silent;
}

}  // namespace moesaic
