#include "common/engine/engine.hpp"

#include <algorithm>

#include "common/engine/stage_spans.hpp"

namespace moesaic {

Engine::Engine(const ModelConfig& config, EngineOptions options,
               std::shared_ptr<const DecoderWeights> weights, Compute compute,
               std::unique_ptr<KvCache> kv, std::unique_ptr<ExpertBackend> experts,
               std::shared_ptr<ThreadPool> pool, OnEvents on_events)
    : config_(config),
      options_(options),
      pool_(std::move(pool)),
      kv_(std::move(kv)),
      experts_(std::move(experts)),
      decoder_(config, std::move(weights), compute, *kv_, *experts_, *pool_, options.micro,
               options.tracer),
      on_events_(std::move(on_events)),
      scheduler_(options.limits),
      metrics_(options.limits, kv_->total_blocks()) {
  if (options_.max_context == 0) options_.max_context = config.max_positions;
  if (options_.drawable_ids == 0) options_.drawable_ids = config.vocab_size;
  status_.kv_blocks_total = kv_->total_blocks();
  status_.kv_blocks_free = kv_->free_blocks();
  thread_ = std::jthread([this] { loop(); });
}

Engine::~Engine() {
  {
    const std::lock_guard lock(mutex_);
    draining_ = stop_ = true;
  }
  wake();
}

void Engine::wake() {
  wake_.notify_one();
  experts_->interrupt();
}

Result<void> Engine::submit(GenerateRequestPtr request) {
  const auto prompt = request->prompt.size();
  if (prompt == 0) return fail(Errc::kInvalidArgument, "prompt has no tokens");
  if (request->max_tokens == 0) return fail(Errc::kInvalidArgument, "max_tokens is 0");
  const auto longest = std::min(options_.max_context, kv_->total_blocks() * kPageTokens);
  if (prompt + request->max_tokens > longest)
    return fail(Errc::kContextLength, "prompt of " + std::to_string(prompt) + " tokens and " +
                                          std::to_string(request->max_tokens) +
                                          " to generate, the context holds " +
                                          std::to_string(longest));
  auto sequence = std::make_unique<Sequence>();
  std::vector<VisualGrid> images;
  std::vector<VisualGrid> videos;
  for (const auto& visual : request->visuals)
    (visual->video ? videos : images).push_back(visual->grid);
  MOESAIC_TRY(sequence->layout, layout_prompt(config_, request->prompt, images, videos));
  for (std::size_t i = 0; i < request->visuals.size(); ++i) {
    const auto& visual = *request->visuals[i];
    if (visual.video != sequence->layout.spans[i].video ||
        visual.values.size() != visual.rows * config_.hidden ||
        visual.rows != sequence->layout.spans[i].rows)
      return fail(Errc::kShapeMismatch,
                  "visual " + std::to_string(i) + ": " + std::to_string(visual.rows) + " rows, " +
                      std::to_string(sequence->layout.spans[i].rows) + " placeholders");
  }
  for (const auto id : request->generated)
    if (id < 0 || static_cast<std::uint32_t>(id) >= config_.vocab_size)
      return fail(Errc::kInvalidArgument, "generated token " + std::to_string(id) + " of " +
                                              std::to_string(config_.vocab_size));
  sequence->tokens = request->prompt;
  sequence->tokens.insert(sequence->tokens.end(), request->generated.begin(),
                          request->generated.end());
  sequence->request = std::move(request);
  {
    const std::lock_guard lock(mutex_);
    if (draining_) return fail(Errc::kUnavailable, "draining");
    if (inbox_.size() + status_.waiting >= options_.limits.max_waiting)
      return fail(Errc::kOverloaded,
                  std::to_string(options_.limits.max_waiting) + " requests are waiting already");
    inbox_.push_back(std::move(sequence));
    metrics_.waiting(status_.waiting + inbox_.size());
  }
  wake();
  return {};
}

void Engine::cancel(std::uint64_t id) {
  {
    const std::lock_guard lock(mutex_);
    cancelled_.push_back(id);
  }
  wake();
}

void Engine::drain(std::function<void()> done) {
  {
    const std::lock_guard lock(mutex_);
    draining_ = true;
    drained_.push_back(std::move(done));
  }
  wake();
}

EngineStatus Engine::status() const {
  const std::lock_guard lock(mutex_);
  auto status = status_;
  status.waiting += inbox_.size();
  return status;
}

/// @pre mutex_ is held
bool Engine::has_work() const {
  return stop_ || !inbox_.empty() || !cancelled_.empty() || !drained_.empty() ||
         !scheduler_.empty();
}

/// Takes over what other threads left, sleeping until there is something to do. False: stop.
bool Engine::take_inbox(TokenEvents& events) {
  std::vector<std::uint64_t> cancelled;
  std::vector<std::function<void()>> drained;
  std::vector<std::unique_ptr<Sequence>> arrived;
  bool stop = false;
  // Before looking, so that who comes later is not overlooked by a back end that waits.
  experts_->clear_interrupt();
  {
    std::unique_lock lock(mutex_);
    while (!has_work()) {
      lock.unlock();
      const bool tended = experts_->idle();
      experts_->clear_interrupt();
      lock.lock();
      if (!tended) wake_.wait(lock, [this] { return has_work(); });
    }
    arrived.swap(inbox_);
    cancelled.swap(cancelled_);
    stop = stop_;
    if (scheduler_.empty() && arrived.empty()) drained.swap(drained_);
  }
  for (auto& sequence : arrived) {
    const auto id = sequence->request->id;
    const auto finished = sequence->finished();
    scheduler_.add(std::move(sequence));
    if (finished) end(id, *finished, std::nullopt, events);
  }
  for (const auto id : cancelled) end(id, FinishReason::kCancelled, std::nullopt, events);
  if (stop)
    for (const auto id : scheduler_.ids())
      end(id, FinishReason::kError, Error{Errc::kUnavailable, "the engine stops"}, events);
  for (const auto& done : drained) done();
  return !stop;
}

void Engine::loop() {
  for (bool go_on = true; go_on;) {
    TokenEvents events;
    go_on = take_inbox(events);
    end_expired(std::nullopt, events);
    if (go_on && !scheduler_.empty()) step(events);
    publish();
    if (!events.empty()) on_events_(std::move(events));
  }
}

void Engine::publish() {
  const std::lock_guard lock(mutex_);
  status_.running = scheduler_.running();
  status_.waiting = scheduler_.waiting();
  status_.kv_blocks_free = kv_->free_blocks();
  metrics_.publish(status_.running, status_.waiting + inbox_.size(), status_.kv_blocks_free);
}

void Engine::end(std::uint64_t id, FinishReason reason, std::optional<Error> error,
                 TokenEvents& events) {
  const auto sequence = scheduler_.remove(id, *kv_);
  if (!sequence) return;
  const std::string_view failure = reason == FinishReason::kCancelled ? "cancelled"
                                   : reason == FinishReason::kError   ? "error"
                                                                      : "";
  trace_stages(options_.tracer, *sequence, failure);
  TokenEvent event;
  event.id = id;
  event.finished = reason;
  event.error = std::move(error);
  events.push_back(std::move(event));
}

void Engine::end_expired(std::optional<Error> failure, TokenEvents& events) {
  if (!failure) failure = Error{Errc::kDeadlineExceeded, "the request's deadline has passed"};
  for (const auto id : scheduler_.expired(std::chrono::steady_clock::now()))
    end(id, FinishReason::kError, failure, events);
}

void Engine::step(TokenEvents& events) {
  const auto plan = scheduler_.plan(*kv_);
  batch_.clear();
  auto& context = batch_.context;
  context.number = step_number_++;
  context.requests = static_cast<std::uint32_t>(plan.size());
  context.patience = scheduler_.earliest_deadline();
  for (const auto& assignment : plan) {
    append_rows(*assignment.sequence, assignment.first, assignment.rows, batch_);
    if (assignment.draws())
      batch_.logit_rows.push_back(static_cast<std::uint32_t>(batch_.ids.size() - 1));
    const auto& request = *assignment.sequence->request;
    context.deadline = std::min(context.deadline, request.deadline);
    if (traces_layers(*assignment.sequence)) context.trace = request.trace;
  }
  const auto begun = std::chrono::steady_clock::now();
  metrics_.planned(plan, begun);
  const auto logits = decoder_.run(batch_);
  if (!logits) {
    // The step is run again, without those whose time is over.
    const auto code = logits.error().code;
    if (code == Errc::kExpertUnavailable || code == Errc::kCancelled)
      return end_expired(Error{Errc::kExpertUnavailable, logits.error().what}, events);
    for (const auto& assignment : plan)
      end(assignment.sequence->request->id, FinishReason::kError, logits.error(), events);
    return;
  }
  metrics_.stepped(std::chrono::steady_clock::now() - begun);
  {
    const std::lock_guard lock(mutex_);
    ++status_.steps;
    for (const auto& a : plan) {
      const auto prompt = a.sequence->request->prompt.size();
      if (a.first < prompt) status_.prompt_tokens += std::min(a.first + a.rows, prompt) - a.first;
    }
  }
  draw(plan, *logits, events);
}

void Engine::draw(const std::vector<Assignment>& plan, std::span<const float> logits,
                  TokenEvents& events) {
  std::size_t row = 0;
  std::uint64_t drawn = 0;
  const auto now = std::chrono::steady_clock::now();
  for (const auto& assignment : plan) {
    auto& sequence = *assignment.sequence;
    const bool draws = assignment.draws();
    sequence.computed += assignment.rows;
    if (!draws) continue;
    const auto& request = *sequence.request;
    const auto scores = logits.subspan(row++ * config_.vocab_size, options_.drawable_ids);
    const auto token = sampler_.draw(scores, request.sampling, sequence.tokens.size());
    if (!token) {
      end(request.id, FinishReason::kError,
          Error{Errc::kInternal, "the model's numbers overflowed at token " +
                                     std::to_string(sequence.tokens.size()) +
                                     ": its logits are not finite"},
          events);
      continue;
    }
    sequence.tokens.push_back(*token);
    ++drawn;
    TokenEvent event;
    event.id = request.id;
    event.tokens.push_back(*token);
    event.finished = sequence.finished();
    metrics_.drawn(sequence, now);
    if (event.finished) {
      const auto ended = scheduler_.remove(request.id, *kv_);
      trace_stages(options_.tracer, *ended, {});
    }
    events.push_back(std::move(event));
  }
  const std::lock_guard lock(mutex_);
  status_.generated_tokens += drawn;
}

}  // namespace moesaic
