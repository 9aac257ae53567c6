#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/thread_pool.hpp"
#include "common/engine/dispatch.hpp"
#include "common/engine/expert_frames.hpp"
#include "common/engine/moe_metrics.hpp"
#include "common/engine/shard_links.hpp"

namespace moesaic {

/// `next`, or a second from now if that is earlier: no wait is without an end.
inline std::chrono::steady_clock::time_point wait_until(
    std::chrono::steady_clock::time_point next) {
  return std::min(next, std::chrono::steady_clock::now() + std::chrono::seconds(1));
}
/// When a budget in microseconds (0: none) that begins now ends, and the way back.
std::chrono::steady_clock::time_point deadline_of(std::uint32_t budget_us);
std::uint32_t budget_of(std::chrono::steady_clock::time_point deadline);

struct FanOutOptions {
  /// After so long a question is asked elsewhere, too, if another shard holds its experts.
  std::chrono::milliseconds question_timeout{5000};
  /// A shard that failed is asked again after so long if nobody else can be.
  std::chrono::milliseconds retry{50};
  /// A router that was just connected to gets so long before the decoder does without it.
  std::chrono::milliseconds connect_time{200};
};

/// The rows of one layer on their way through the shards.
struct FanOutJob {
  MoeStep step;  ///< `x` must stay valid until the job is finished or abandoned
  Choices choices;
};

/// Splits the rows of a layer over the shards of a placement, asks, asks others when a shard dies
/// or fails, and finishes the expert tree from the answers. A state machine that never waits: its
/// owner passes events on and looks at the time. Used by the decoder (RoutedExperts) and the router
/// (RouterService) on the thread of their endpoint.
class ShardFanOut {
 public:
  using Clock = std::chrono::steady_clock;
  using JobId = std::uint64_t;

  /// @param endpoint outlives this
  ShardFanOut(const ModelConfig& config, transport::Endpoint& endpoint,
              std::shared_ptr<TopologySource> source, FanOutOptions options);

  /// Uses the newest topology for all questions from here on, and connects to its shards.
  void refresh();
  /// Closes all connections until the next `refresh`. @pre no job
  void disconnect();

  /// Starts a job; it is asked for at once.
  JobId start(FanOutJob job);
  /// Takes an event of the endpoint; those that do not concern shards are ignored.
  void handle(transport::Event event);
  /// Does what is due by now: retries, timeouts, deadlines.
  void tick(Clock::time_point now);
  /// When `tick` has something to do; max: not before an event.
  Clock::time_point next_tick() const;

  /// It has all answers, or has failed.
  bool ready(JobId id) const;
  /// Some of its experts are on no shard that can be asked now.
  bool stuck(JobId id) const;
  /// Ends a ready job: gives the routed sum of every row to `take`, as `ExpertBackend::gather`.
  /// @errors kExpertUnavailable, kTooLarge
  [[nodiscard]] Result<void> finish(JobId id, const TakeSum& take, ThreadPool& pool);
  /// Forgets a job; late answers are dropped.
  void abandon(JobId id);
  void abandon_all();

  const ShardLinks& links() const { return links_; }
  const cluster::PlacementTable& placement() const { return topology_->placement; }
  /// Numbers for frames that are no job's.
  std::uint64_t next_sequence() { return ++sequence_; }

 private:
  /// Some experts of some rows, asked of one shard.
  struct Question {
    std::uint64_t sequence = 0;
    ShardLinks::Number shard = 0;
    transport::PeerId peer = 0;
    std::size_t modality = 0;
    std::vector<std::uint32_t> rows;   ///< positions in the modality's choice
    std::vector<std::uint64_t> asked;  ///< per row: mask of experts
    std::uint64_t version = 0;         ///< of the topology it was asked by
    std::uint64_t pairs = 0;           ///< of row and expert
    Clock::time_point sent, timeout;
  };
  struct Job {
    FanOutJob work;
    std::array<std::vector<std::uint64_t>, kModalities> wanted;  ///< per row: experts not asked for
    std::array<std::vector<TreeNode>, kModalities> nodes;        ///< [rows][top_k]
    std::array<std::vector<std::uint8_t>, kModalities> node_count;
    std::vector<Question> open;
    std::list<ExpertNodes> answers;         ///< memory of the nodes
    std::vector<ShardLinks::Number> avoid;  ///< failed it; until `retry_at`
    Clock::time_point retry_at = Clock::time_point::max();
    bool stuck = false;
    std::uint16_t attempt = 0;
    std::string last_failure;
    std::optional<Error> error;
    Clock::time_point first_answer{};
    bool many = false;  ///< more than one shard was asked
  };
  using Jobs = std::map<JobId, Job>;

  void place(Job& job);
  bool place_pool(Job& job, std::size_t modality, cluster::ShardSet usable);
  bool ask(Job& job, std::size_t modality, std::size_t shard_index,
           std::span<const std::uint64_t> masks);
  void take_answer(transport::Frame frame, transport::PeerId peer);
  Result<void> accept(Job& job, const Question& question, transport::Frame frame);
  void withdraw(Job& job, std::size_t question, bool avoid, const std::string& why);
  void lost(ShardLinks::Number shard, const std::string& why);
  void withdraw_overdue(Job& job, Clock::time_point now);
  cluster::ShardSet usable(const Job& job) const;
  Error unavailable(const Job& job) const;
  void report();

  ModelConfig config_;
  transport::Endpoint& endpoint_;
  std::shared_ptr<TopologySource> source_;
  FanOutOptions options_;
  TopologyPtr topology_;
  ShardLinks links_;
  MoeMetrics metrics_;
  Jobs jobs_;
  JobId next_job_ = 1;
  std::uint64_t sequence_ = 0;
  std::vector<std::uint64_t> load_;  ///< per shard number: pairs asked and not answered
  std::string missing_;              ///< shards without which some expert cannot be asked for
  Reach reported_;
  // Scratch of `place`.
  std::vector<std::uint64_t> asked_, table_load_;
  std::vector<std::uint32_t> ids_;
};

}  // namespace moesaic
