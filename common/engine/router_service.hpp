#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <list>
#include <memory>
#include <thread>
#include <vector>

#include "common/engine/dispatch.hpp"
#include "common/engine/shard_fan_out.hpp"
#include "common/engine/shard_probes.hpp"
#include "common/trace/tracer.hpp"

namespace moesaic {

/// What a router's dispatch is made of.
struct RouterServiceParts {
  ModelConfig config;
  Compute compute = Compute::kBf16;
  std::shared_ptr<const RouterWeights> gates;
  std::shared_ptr<TopologySource> source;
  std::vector<transport::Address> listen;
  unsigned threads = 1;  ///< kernel workers, the service thread included
  FanOutOptions fan_out;
  /// A question whose experts are on no live shard fails after so long; the decoder waits and asks
  /// again.
  std::chrono::milliseconds patience{200};
  std::size_t max_open = 256;  ///< questions under way; more are refused
  Tracer tracer{};
};

/// Dispatch for many decoders on a thread of its own: rows of a layer come in (kMoeRows), are
/// gated, split over the shards, and their sums go back (kMoeSums). Questions of all decoders are
/// under way at the same time. A kProbe is answered by asking every shard. Destruction joins the
/// thread.
class RouterService {
 public:
  struct Counts {
    std::uint64_t batches = 0;
    std::uint64_t rows = 0;
    std::uint64_t failed = 0;
    std::size_t open = 0;
  };

  /// @param endpoint listens to decoders and connects to shards; used by the service thread alone
  /// @errors kIo: an address that cannot be listened at
  [[nodiscard]] static Result<std::unique_ptr<RouterService>> start(
      RouterServiceParts parts, std::unique_ptr<transport::Endpoint> endpoint);
  ~RouterService();
  RouterService(const RouterService&) = delete;
  RouterService& operator=(const RouterService&) = delete;

  /// As connectors must name them, in the order given.
  const std::vector<transport::Address>& addresses() const { return addresses_; }
  /// Since `start`; any thread.
  Counts counts() const { return {batches_, rows_, failed_, open_count_}; }

 private:
  /// A decoder's question under way.
  struct Open {
    transport::PeerId peer = 0;
    transport::Frame question;  ///< memory of the rows
    MoeRows rows;
    ShardFanOut::JobId job = 0;
    Span span{};
  };

  RouterService(RouterServiceParts parts, std::unique_ptr<transport::Endpoint> endpoint);
  Result<void> listen();
  void serve();
  void handle(transport::Event event);
  void take_question(transport::PeerId peer, transport::Frame frame);
  void cancel(transport::PeerId peer, std::uint64_t sequence);
  Result<void> begin(transport::PeerId peer, transport::Frame frame);
  void answer_ready();
  void send(transport::PeerId peer, std::uint64_t sequence, transport::Frame frame);

  RouterServiceParts parts_;
  std::unique_ptr<transport::Endpoint> endpoint_;
  std::vector<transport::Address> addresses_;
  TopologySource::Subscription subscription_;
  std::atomic<bool> stop_ = false;
  std::atomic<std::uint64_t> batches_{0}, rows_{0}, failed_{0};
  std::atomic<std::size_t> open_count_{0};

  // Service thread only.
  ThreadPool pool_;
  Dispatch dispatch_;
  ShardFanOut fan_out_;
  ShardProbes probes_;
  std::list<Open> open_;  ///< a job points into its entry
  std::uint32_t number_ = 0;

  std::jthread thread_;
};

}  // namespace moesaic
