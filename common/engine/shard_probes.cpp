#include "common/engine/shard_probes.hpp"

#include "common/engine/owner_choice.hpp"

namespace moesaic {

void ShardProbes::start(Asker asker, Clock::time_point deadline) {
  Probe probe{asker, deadline, fan_out_.placement(), {}, 0};
  const auto& links = fan_out_.links();
  for (std::size_t i = 0; i < links.numbers().size(); ++i) {
    const auto peer = links.peer(links.numbers()[i]);
    if (!peer) continue;
    transport::Frame frame;
    frame.type = transport::FrameType::kProbe;
    frame.sequence = fan_out_.next_sequence();
    frame.budget_us = budget_of(deadline);
    const auto sequence = frame.sequence;
    if (endpoint_.send(*peer, std::move(frame))) probe.waiting.emplace(sequence, i);
  }
  open_.push_back(std::move(probe));
}

void ShardProbes::handle(const transport::Frame& frame) {
  for (auto& probe : open_) {
    const auto it = probe.waiting.find(frame.sequence);
    if (it == probe.waiting.end()) continue;
    if (frame.type == transport::FrameType::kProbed)
      probe.answered |= cluster::ShardSet{1} << it->second;
    probe.waiting.erase(it);
    return;
  }
}

std::vector<ShardProbes::Done> ShardProbes::take_done(Clock::time_point now) {
  std::vector<Done> done;
  std::erase_if(open_, [&](const Probe& probe) {
    if (!probe.waiting.empty() && now < probe.deadline) return false;
    done.push_back({probe.asker, missing_shards(probe.placement, probe.answered)});
    return true;
  });
  return done;
}

ShardProbes::Clock::time_point ShardProbes::next_tick() const {
  auto next = Clock::time_point::max();
  for (const auto& probe : open_) next = std::min(next, probe.deadline);
  return next;
}

}  // namespace moesaic
