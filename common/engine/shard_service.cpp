#include "common/engine/shard_service.hpp"

#include <unistd.h>

#include <chrono>
#include <future>
#include <optional>

#include "common/engine/expert_frames.hpp"
#include "common/metrics/metrics.hpp"
#include "common/transport/failure.hpp"

namespace moesaic {
namespace {

using transport::FrameType;
using Clock = std::chrono::steady_clock;

}  // namespace

ShardService::ShardService(ShardServiceParts parts, std::unique_ptr<transport::Endpoint> endpoint)
    : parts_(std::move(parts)),
      endpoint_(std::move(endpoint)),
      expert_rows_(parts_.config.layers * (parts_.config.experts[0] + parts_.config.experts[1])),
      expert_counters_(parts_.expert_metrics ? expert_rows_.size() : 0) {}

Result<std::unique_ptr<ShardService>> ShardService::start(
    ShardServiceParts parts, std::unique_ptr<transport::Endpoint> endpoint) {
  std::unique_ptr<ShardService> service(new ShardService(std::move(parts), std::move(endpoint)));
  service->set_table(service->parts_.table, service->parts_.epochs);
  auto listening = std::make_shared<std::promise<Result<void>>>();
  auto done = listening->get_future();
  service->thread_ = std::jthread([s = service.get(), listening] {
    auto result = s->listen();
    const bool good = result.has_value();
    listening->set_value(std::move(result));
    if (good) s->serve();
  });
  MOESAIC_CHECK(done.get());
  return service;
}

ShardService::~ShardService() {
  stop_ = true;
  endpoint_->wake();
}

Result<void> ShardService::listen() {
  for (const auto& address : parts_.listen) {
    MOESAIC_TRY(auto bound, endpoint_->listen(address));
    addresses_.push_back(std::move(bound));
  }
  return {};
}

void ShardService::set_table(std::shared_ptr<const ExpertTable> table, EpochRange epochs) {
  metrics::gauge("moesaic_moe_weights_resident_bytes").set(static_cast<double>(table->bytes()));
  const std::lock_guard lock(mutex_);
  parts_.table = std::move(table);
  parts_.epochs = epochs;
}

std::shared_ptr<const ExpertTable> ShardService::table() const {
  const std::lock_guard lock(mutex_);
  return parts_.table;
}

ShardService::Counts ShardService::counts() const {
  return {batches_, rows_, failed_, static_cast<double>(compute_ns_) * 1e-9};
}

std::vector<std::uint64_t> ShardService::expert_rows() const {
  return {expert_rows_.begin(), expert_rows_.end()};
}

/// One series per expert, from its first row on.
void ShardService::count(std::size_t index, const ExpertCall& call, std::uint32_t expert) {
  auto& counter = expert_counters_[index];
  if (!counter)
    counter =
        metrics::counter("moesaic_moe_expert_tokens_total",
                         {{"layer", std::to_string(call.layer)},
                          {"expert", std::to_string(expert)},
                          {"modality", call.modality == Modality::kText ? "text" : "vision"}});
  counter->add();
}

transport::Frame ShardService::answer(const transport::Frame& question, ExpertScratch& scratch,
                                      ThreadPool& pool) {
  std::shared_ptr<const ExpertTable> table;
  EpochRange epochs;
  {
    const std::lock_guard lock(mutex_);
    table = parts_.table;
    epochs = parts_.epochs;
  }
  transport::Frame frame;
  frame.epoch = epochs.newest;
  if (question.type == FrameType::kProbe) {
    frame.type = FrameType::kProbed;
    return frame;
  }
  if (question.epoch != 0 && question.epoch < epochs.oldest) {
    frame.type = FrameType::kStale;
    return frame;
  }
  const auto compute = [&]() -> Result<transport::Frame> {
    MOESAIC_TRY(const auto rows, read_expert_rows(question, parts_.config.hidden, parts_.compute));
    MOESAIC_TRY(const auto nodes, table->run(rows.call, scratch, pool));
    rows_ += rows.rows.size();
    const auto& experts = parts_.config.experts;
    const auto first = rows.call.layer * (experts[0] + experts[1]) +
                       (rows.call.modality == Modality::kText ? 0 : experts[0]);
    for (const auto id : rows.call.ids) {
      if (id == kNoExpert) continue;
      expert_rows_[first + id].fetch_add(1, std::memory_order_relaxed);
      if (parts_.expert_metrics) count(first + id, rows.call, id);
    }
    return make_expert_nodes(nodes, parts_.config.hidden, parts_.compute);
  };
  ++batches_;
  if (auto nodes = compute()) {
    nodes->epoch = epochs.newest;
    return std::move(*nodes);
  } else {
    ++failed_;
    return transport::make_failure(nodes.error());
  }
}

void ShardService::serve() {
  ThreadPool pool(parts_.threads);
  std::optional<ThreadPool::Loan> loan;
  if (parts_.neighbours) {
    pool.pin(static_cast<std::size_t>(::getpid()));
    loan.emplace(pool);
  }
  ExpertScratch scratch;
  auto seconds =
      metrics::histogram("moesaic_moe_dispatch_seconds",
                         {{"shard", endpoint_->config().self.name}, {"stage", "compute"}});
  while (!stop_) {
    auto event = endpoint_->receive(Clock::now() + std::chrono::seconds(1));
    if (!event || event->kind != transport::Event::Kind::kFrame) continue;
    const auto& question = event->frame;
    if (question.type != FrameType::kExpertRows && question.type != FrameType::kProbe) continue;
    const auto begun = Clock::now();
    auto span = parts_.tracer.start("experts", SpanKind::kServer, question.trace);
    if (span.recording()) span.set("moesaic.moe.layer", std::int64_t{question.layer});
    auto frame = answer(question, scratch, pool);
    pool.rest();  // the cores are the decoder's now, if it is here
    frame.sequence = question.sequence;
    frame.layer = question.layer;
    frame.modality = question.modality;
    frame.attempt = question.attempt;
    frame.trace = question.trace;
    const auto spent = Clock::now() - begun;
    span.end(begun + spent);
    compute_ns_ += static_cast<std::uint64_t>(std::chrono::nanoseconds(spent).count());
    if (question.type == FrameType::kExpertRows)
      seconds.observe(std::chrono::duration<double>(spent).count());
    // An asker that has gone, or whose queue is full, asks again elsewhere.
    (void)endpoint_->send(event->peer, std::move(frame));
  }
}

}  // namespace moesaic
