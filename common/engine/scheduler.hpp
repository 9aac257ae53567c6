#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <vector>

#include "common/engine/sequence.hpp"

namespace moesaic {

/// Bounds of a scheduler; configs/services/all_in_one.yaml has their keys.
struct SchedulerLimits {
  std::size_t max_running = 32;     ///< sequences in a step
  std::size_t max_waiting = 256;    ///< sequences that wait for admission
  std::size_t step_rows = 512;      ///< rows of one step, prefill and decode together
  std::size_t prefill_chunk = 512;  ///< rows of one sequence in one step
};

/// Consecutive tokens of one sequence that the next step computes.
struct Assignment {
  Sequence* sequence = nullptr;
  std::size_t first = 0;
  std::size_t rows = 0;
  /// The last row's logits give the next token.
  bool draws() const { return first + rows == sequence->tokens.size(); }
};

/// Decides which rows a step computes: sequences join and leave between steps (continuous
/// batching), each running one decodes every step, and long prompts are cut into chunks that fill
/// what is left. When KV blocks run out the youngest sequence gives its up and is computed again
/// later; the tokens stay the same. A plain class, used by one engine thread.
class Scheduler {
 public:
  explicit Scheduler(SchedulerLimits limits) : limits_(limits) {}

  void add(std::unique_ptr<Sequence> sequence) { waiting_.push_back(std::move(sequence)); }

  /// Rows for the next step; empty if nobody can run.
  std::vector<Assignment> plan(KvCache& kv);

  /// Removes a sequence and frees its blocks; null if there is none of that id.
  std::unique_ptr<Sequence> remove(std::uint64_t id, KvCache& kv);

  /// Ids of all sequences whose deadline has passed.
  std::vector<std::uint64_t> expired(std::chrono::steady_clock::time_point now) const;
  std::vector<std::uint64_t> ids() const;
  /// The earliest deadline of all sequences; max: none.
  std::chrono::steady_clock::time_point earliest_deadline() const;

  std::size_t running() const { return running_.size(); }
  std::size_t waiting() const { return waiting_.size(); }
  bool empty() const { return running_.empty() && waiting_.empty(); }
  const SchedulerLimits& limits() const { return limits_; }

 private:
  void admit(KvCache& kv);
  bool grow(Sequence& sequence, std::size_t tokens, KvCache& kv);
  void preempt_youngest(KvCache& kv);

  SchedulerLimits limits_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  ///< oldest first
};

}  // namespace moesaic
