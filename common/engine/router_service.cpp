#include "common/engine/router_service.hpp"

#include <cstring>
#include <future>

#include "common/transport/failure.hpp"

namespace moesaic {
namespace {

using transport::FrameType;
using Kind = transport::Event::Kind;
using Clock = std::chrono::steady_clock;

constexpr auto kProbeTime = std::chrono::milliseconds(500);

}  // namespace

RouterService::RouterService(RouterServiceParts parts,
                             std::unique_ptr<transport::Endpoint> endpoint)
    : parts_(std::move(parts)),
      endpoint_(std::move(endpoint)),
      subscription_(parts_.source->subscribe([this] { endpoint_->wake(); })),
      pool_(parts_.threads),
      dispatch_(parts_.config, parts_.gates),
      fan_out_(parts_.config, *endpoint_, parts_.source, parts_.fan_out),
      probes_(*endpoint_, fan_out_) {}

Result<std::unique_ptr<RouterService>> RouterService::start(
    RouterServiceParts parts, std::unique_ptr<transport::Endpoint> endpoint) {
  std::unique_ptr<RouterService> service(new RouterService(std::move(parts), std::move(endpoint)));
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

RouterService::~RouterService() {
  parts_.source->unsubscribe(subscription_);
  stop_ = true;
  endpoint_->wake();
}

Result<void> RouterService::listen() {
  for (const auto& address : parts_.listen) {
    MOESAIC_TRY(auto bound, endpoint_->listen(address));
    addresses_.push_back(std::move(bound));
  }
  return {};
}

void RouterService::serve() {
  while (!stop_) {
    fan_out_.refresh();
    const auto next = std::min(fan_out_.next_tick(), probes_.next_tick());
    if (auto event = endpoint_->receive(wait_until(next))) handle(std::move(*event));
    fan_out_.tick(Clock::now());
    answer_ready();
  }
}

void RouterService::handle(transport::Event event) {
  if (event.kind == Kind::kFrame) {
    switch (event.frame.type) {
      case FrameType::kMoeRows:
        return take_question(event.peer, std::move(event.frame));
      case FrameType::kProbe:
        return probes_.start(
            {event.peer, event.frame.sequence},
            std::min(deadline_of(event.frame.budget_us), Clock::now() + kProbeTime));
      case FrameType::kCancel:
        return cancel(event.peer, event.frame.sequence);
      case FrameType::kProbed:
      case FrameType::kFailure:
        probes_.handle(event.frame);
        break;
      default:
        break;
    }
  }
  if (event.kind == Kind::kDown)
    std::erase_if(open_, [&](const Open& open) {
      if (open.peer == event.peer) fan_out_.abandon(open.job);
      return open.peer == event.peer;
    });
  fan_out_.handle(std::move(event));
}

/// The question is answered all the same: its decoder counts what it has open.
void RouterService::cancel(transport::PeerId peer, std::uint64_t sequence) {
  std::erase_if(open_, [&](const Open& open) {
    if (open.peer != peer || open.question.sequence != sequence) return false;
    fan_out_.abandon(open.job);
    send(peer, sequence, transport::make_failure({Errc::kCancelled, "cancelled"}));
    return true;
  });
}

void RouterService::take_question(transport::PeerId peer, transport::Frame frame) {
  const auto sequence = frame.sequence;
  ++batches_;
  if (const auto begun = begin(peer, std::move(frame)); !begun) {
    ++failed_;
    send(peer, sequence, transport::make_failure(begun.error()));
  }
}

Result<void> RouterService::begin(transport::PeerId peer, transport::Frame frame) {
  if (open_.size() >= parts_.max_open)
    return fail(Errc::kOverloaded,
                "router: " + std::to_string(open_.size()) + " layers are under way already");
  Open open{peer, std::move(frame), {}, 0, {}};
  // The rows point to the tensors' memory, which moves along with the frame.
  MOESAIC_TRY(open.rows, read_moe_rows(open.question, parts_.config, parts_.compute));
  open_.push_back(std::move(open));
  auto& kept = open_.back();
  kept.rows.step.modality = kept.rows.modality;
  auto& context = kept.rows.step.context;
  context.number = number_++;
  context.deadline = deadline_of(kept.question.budget_us);
  context.patience = Clock::now() + parts_.patience;
  kept.span = parts_.tracer.start("dispatch", SpanKind::kServer, context.trace);
  context.trace = kept.span.context();
  if (kept.span.recording()) {
    kept.span.set("moesaic.moe.layer", std::int64_t{kept.rows.step.layer});
    kept.span.set("moesaic.moe.rows", static_cast<std::int64_t>(kept.rows.modality.size()));
  }
  rows_ += kept.rows.modality.size();
  FanOutJob job{kept.rows.step, {}};
  dispatch_.choose(kept.rows.step, pool_, job.choices);
  kept.job = fan_out_.start(std::move(job));
  return {};
}

void RouterService::answer_ready() {
  std::erase_if(open_, [&](Open& open) {
    if (!fan_out_.ready(open.job)) return false;
    const auto rows = open.rows.modality.size();
    const std::size_t hidden = parts_.config.hidden;
    auto sums = make_moe_sums(rows, hidden, parts_.compute);
    auto& values = sums.tensors[0].bytes;
    const std::size_t bytes = hidden * operand_bytes(normed_form(parts_.compute));
    const auto done = fan_out_.finish(
        open.job,
        [&](std::size_t row, Compute, const void* sum) {
          std::memcpy(values.data() + row * bytes, sum, bytes);
        },
        pool_);
    if (!done) {
      ++failed_;
      open.span.fail("experts");
    }
    send(open.peer, open.question.sequence,
         done ? std::move(sums) : transport::make_failure(done.error()));
    return true;
  });
  open_count_ = open_.size();
  for (const auto& probe : probes_.take_done(Clock::now())) {
    transport::Frame frame;
    frame.type = FrameType::kProbed;
    if (!probe.missing.empty())
      frame = transport::make_failure(
          {Errc::kExpertUnavailable, "expert shard unavailable: " + probe.missing});
    send(probe.asker.peer, probe.asker.sequence, std::move(frame));
  }
}

/// A decoder that has gone, or whose queue is full, asks again elsewhere.
void RouterService::send(transport::PeerId peer, std::uint64_t sequence, transport::Frame frame) {
  frame.sequence = sequence;
  frame.epoch = fan_out_.placement().epoch;
  (void)endpoint_->send(peer, std::move(frame));
}

}  // namespace moesaic
