#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "common/metrics/metrics.hpp"
#include "common/model/expert_table.hpp"
#include "common/trace/tracer.hpp"
#include "common/transport/endpoint.hpp"

namespace moesaic {

/// The placements whose experts a table has.
struct EpochRange {
  std::uint32_t oldest = 0;
  std::uint32_t newest = 0;
};

/// What a shard service is made of.
struct ShardServiceParts {
  ModelConfig config;
  Compute compute = Compute::kBf16;
  std::shared_ptr<const ExpertTable> table;
  EpochRange epochs;
  std::vector<transport::Address> listen;
  unsigned threads = 1;     ///< kernel workers, the service thread included
  bool neighbours = false;  ///< who asks is another process of this machine, on the same cores
  Tracer tracer{};
  bool expert_metrics = false;  ///< a series for each expert
};

/// Answers expert frames on a thread of its own with the experts of one shard: rows in, tree nodes
/// out, for any number of askers. It never sees token ids or text. Its owner (the ExpertShard
/// actor, or main) makes and destroys it; destruction joins the thread.
class ShardService {
 public:
  struct Counts {
    std::uint64_t batches = 0;
    std::uint64_t rows = 0;
    std::uint64_t failed = 0;
    double compute_seconds = 0;
  };

  /// @param endpoint used by the service thread alone from here on
  /// @errors kIo: an address that cannot be listened at
  [[nodiscard]] static Result<std::unique_ptr<ShardService>> start(
      ShardServiceParts parts, std::unique_ptr<transport::Endpoint> endpoint);
  ~ShardService();
  ShardService(const ShardService&) = delete;
  ShardService& operator=(const ShardService&) = delete;

  /// Serves by another table from the next batch on. Questions of placements before `epochs.oldest`
  /// are answered kStale. Any thread.
  void set_table(std::shared_ptr<const ExpertTable> table, EpochRange epochs);
  std::shared_ptr<const ExpertTable> table() const;

  /// As connectors must name them, in the order given.
  const std::vector<transport::Address>& addresses() const { return addresses_; }

  /// Since `start`; any thread.
  Counts counts() const;
  /// Rows each expert computed, as PlacementTable::index counts; any thread.
  std::vector<std::uint64_t> expert_rows() const;

 private:
  ShardService(ShardServiceParts parts, std::unique_ptr<transport::Endpoint> endpoint);
  Result<void> listen();
  void serve();
  transport::Frame answer(const transport::Frame& question, ExpertScratch& scratch,
                          ThreadPool& pool);
  void count(std::size_t index, const ExpertCall& call, std::uint32_t expert);

  ShardServiceParts parts_;  ///< table and epochs: guarded by mutex_
  std::unique_ptr<transport::Endpoint> endpoint_;
  std::vector<transport::Address> addresses_;
  mutable std::mutex mutex_;
  std::atomic<bool> stop_ = false;
  std::atomic<std::uint64_t> batches_{0}, rows_{0}, failed_{0}, compute_ns_{0};
  std::vector<std::atomic<std::uint64_t>> expert_rows_;
  std::vector<std::optional<metrics::Counter>> expert_counters_;  ///< as expert_rows_, or none
  std::jthread thread_;
};

}  // namespace moesaic
