#include "common/trace/tracer.hpp"

#include <cstring>
#include <random>
#include <span>
#include <utility>

#include "common/trace/span_queue.hpp"

namespace moesaic {
namespace {

void fill_random(std::span<std::uint8_t> bytes) {
  thread_local std::mt19937_64 random{[] {
    std::random_device device;
    return (std::uint64_t{device()} << 32U) | device();
  }()};
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(std::uint64_t)) {
    const std::uint64_t bits = random() | 1U;  // an id is not zero
    std::memcpy(bytes.data() + at, &bits, sizeof bits);
  }
}

/// By the trace's id, so that the same traces are sampled wherever the ratio is the same.
bool sampled_by(double ratio, const TraceContext& context) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, context.trace_id.data() + 8, sizeof bits);
  constexpr double kScale = 1.0 / 9007199254740992.0;  // 2^-53
  return static_cast<double>(bits >> 11U) * kScale < ratio;
}

}  // namespace

Span& Span::operator=(Span&& other) noexcept {
  if (this == &other) return *this;
  end();
  context_ = other.context_;
  record_ = std::move(other.record_);
  queue_ = std::move(other.queue_);
  return *this;
}

void Span::set(std::string_view key, SpanValue value) {
  if (record_) record_->attributes.emplace_back(std::string(key), std::move(value));
}

void Span::fail(std::string_view what) {
  if (!record_) return;
  record_->failed = true;
  record_->error = std::string(what);
  set("error.type", record_->error);
}

void Span::end(Clock::time_point at) {
  if (!record_) return;
  record_->end_unix_ns = queue_->unix_ns(at);
  queue_->push(std::move(*record_));
  record_.reset();
}

Span Tracer::start_root(std::string_view name, SpanKind kind, const TraceContext& incoming,
                        Clock::time_point start) const {
  if (incoming.valid() || !queue_) return this->start(name, kind, incoming, start);
  TraceContext context;
  fill_random(context.trace_id);
  context.sampled = sampled_by(queue_->sample_ratio(), context);
  if (!context.sampled) return {};
  return make(name, kind, context, {}, start);
}

Span Tracer::start(std::string_view name, SpanKind kind, const TraceContext& parent,
                   Clock::time_point start) const {
  if (queue_ && parent.sampled && parent.valid()) return make(name, kind, parent, parent, start);
  Span span;
  span.context_ = parent;
  return span;
}

Span Tracer::make(std::string_view name, SpanKind kind, const TraceContext& context,
                  const TraceContext& parent, Clock::time_point start) const {
  Span span;
  span.context_ = context;
  fill_random(span.context_.span_id);
  span.queue_ = queue_;
  span.record_ = std::make_unique<SpanRecord>();
  span.record_->context = span.context_;
  span.record_->parent_id = parent.span_id;
  span.record_->name = std::string(name);
  span.record_->kind = kind;
  span.record_->start_unix_ns = queue_->unix_ns(start);
  return span;
}

}  // namespace moesaic
