#include "common/engine/scheduler.hpp"

#include <algorithm>

namespace moesaic {
namespace {

void release_blocks(Sequence& sequence, KvCache& kv) {
  for (const auto block : sequence.blocks) kv.release(block);
  sequence.blocks.clear();
  sequence.computed = 0;
}

template <class Container>
std::unique_ptr<Sequence> take(Container& from, std::uint64_t id) {
  const auto it =
      std::find_if(from.begin(), from.end(), [&](const auto& s) { return s->request->id == id; });
  if (it == from.end()) return nullptr;
  auto found = std::move(*it);
  from.erase(it);
  return found;
}

}  // namespace

void Scheduler::admit(KvCache& kv) {
  while (!waiting_.empty() && running_.size() < limits_.max_running) {
    auto& next = *waiting_.front();
    const auto blocks = kv_blocks_for(next.tokens.size());
    // One block more than the prompt needs, so that its first steps do not push somebody out at
    // once.
    if (kv.free_blocks() < std::min(blocks + 1, kv.total_blocks())) return;
    for (std::size_t i = 0; i < blocks; ++i) next.blocks.push_back(*kv.allocate());
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

void Scheduler::preempt_youngest(KvCache& kv) {
  release_blocks(*running_.back(), kv);
  waiting_.push_front(std::move(running_.back()));
  running_.pop_back();
}

/// Makes room for `tokens` tokens, pushing out younger sequences; false if this one was pushed out
/// itself.
bool Scheduler::grow(Sequence& sequence, std::size_t tokens, KvCache& kv) {
  while (sequence.blocks.size() < kv_blocks_for(tokens)) {
    if (const auto block = kv.allocate()) {
      sequence.blocks.push_back(*block);
      continue;
    }
    const bool self = running_.back().get() == &sequence;
    preempt_youngest(kv);
    if (self) return false;
  }
  return true;
}

std::vector<Assignment> Scheduler::plan(KvCache& kv) {
  admit(kv);
  std::vector<Assignment> plan;
  std::size_t rows = 0;
  // Decoding sequences first, oldest first; `running_` may lose its youngest on the way.
  for (std::size_t i = 0; i < running_.size(); ++i) {
    auto& sequence = *running_[i];
    if (!sequence.decoding()) continue;
    if (!grow(sequence, sequence.tokens.size(), kv)) break;
    plan.push_back({&sequence, sequence.computed, 1});
    ++rows;
  }
  for (const auto& owned : running_) {
    auto& sequence = *owned;
    if (sequence.decoding() || rows >= limits_.step_rows) continue;
    const auto chunk = std::min({sequence.tokens.size() - sequence.computed, limits_.prefill_chunk,
                                 limits_.step_rows - rows});
    plan.push_back({&sequence, sequence.computed, chunk});
    rows += chunk;
  }
  return plan;
}

std::unique_ptr<Sequence> Scheduler::remove(std::uint64_t id, KvCache& kv) {
  auto found = take(running_, id);
  if (!found) found = take(waiting_, id);
  if (found) release_blocks(*found, kv);
  return found;
}

std::vector<std::uint64_t> Scheduler::expired(std::chrono::steady_clock::time_point now) const {
  std::vector<std::uint64_t> ids;
  const auto check = [&](const auto& sequences) {
    for (const auto& s : sequences)
      if (s->request->deadline <= now) ids.push_back(s->request->id);
  };
  check(running_);
  check(waiting_);
  return ids;
}

std::chrono::steady_clock::time_point Scheduler::earliest_deadline() const {
  auto earliest = std::chrono::steady_clock::time_point::max();
  for (const auto& s : running_) earliest = std::min(earliest, s->request->deadline);
  for (const auto& s : waiting_) earliest = std::min(earliest, s->request->deadline);
  return earliest;
}

std::vector<std::uint64_t> Scheduler::ids() const {
  return expired(std::chrono::steady_clock::time_point::max());
}

}  // namespace moesaic
