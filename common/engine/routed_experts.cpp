#include "common/engine/routed_experts.hpp"

namespace moesaic {

RoutedExperts::RoutedExperts(const ModelConfig& config, std::shared_ptr<const RouterWeights> gates,
                             std::shared_ptr<TopologySource> source,
                             std::unique_ptr<transport::Endpoint> endpoint, ThreadPool& pool,
                             FanOutOptions options)
    : dispatch_(config, std::move(gates)),
      source_(std::move(source)),
      endpoint_(std::move(endpoint)),
      pool_(pool),
      fan_out_(config, *endpoint_, source_, options),
      subscription_(source_->subscribe([this] { endpoint_->wake(); })) {}

RoutedExperts::~RoutedExperts() { source_->unsubscribe(subscription_); }

void RoutedExperts::begin_step() {
  fan_out_.abandon_all();
  slots_.fill(std::nullopt);
  fan_out_.refresh();
  neighbours_.begin_step(*source_->latest());
}

Result<void> RoutedExperts::submit(const MoeStep& step, std::size_t slot) {
  FanOutJob job{step, {}};
  dispatch_.choose(step, pool_, job.choices);
  slots_[slot] = fan_out_.start(std::move(job));
  neighbours_.asked();
  return {};
}

Result<void> RoutedExperts::gather(const TakeSum& take, std::size_t slot) {
  const auto job = *slots_[slot];
  slots_[slot].reset();
  const auto waited = wait_for(job);
  neighbours_.answered();
  MOESAIC_CHECK(waited);
  return fan_out_.finish(job, take, pool_);
}

Result<void> RoutedExperts::wait_for(ShardFanOut::JobId job) {
  while (!fan_out_.ready(job)) {
    if (interrupted_ && fan_out_.stuck(job)) {
      fan_out_.abandon(job);
      return fail(Errc::kCancelled, "interrupted while an expert shard is missing");
    }
    if (auto event = endpoint_->receive(wait_until(fan_out_.next_tick())))
      fan_out_.handle(std::move(*event));
    fan_out_.tick(ShardFanOut::Clock::now());
  }
  return {};
}

void RoutedExperts::interrupt() {
  interrupted_ = true;
  endpoint_->wake();
}

bool RoutedExperts::idle() {
  while (!interrupted_) {
    fan_out_.refresh();
    if (auto event = endpoint_->receive(wait_until(fan_out_.next_tick())))
      fan_out_.handle(std::move(*event));
  }
  return true;
}

}  // namespace moesaic
