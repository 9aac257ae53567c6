#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/trace_context.hpp"
#include "common/trace/span_record.hpp"

namespace moesaic {

namespace trace_detail {
class SpanQueue;
}

/// A piece of work of one trace: measured from its making to `end` or its destruction. One that
/// does not record costs nothing and takes everything said to it. One thread at a time.
class Span {
 public:
  using Clock = std::chrono::steady_clock;

  /// Does not record.
  Span() = default;
  ~Span() { end(); }
  Span(Span&&) noexcept = default;
  Span& operator=(Span&& other) noexcept;

  bool recording() const { return record_ != nullptr; }
  /// For children, here or in another process. Of a span that does not record: its parent's.
  const TraceContext& context() const { return context_; }
  /// @param key a name of the OpenTelemetry conventions where one exists, else
  /// moesaic.<area>.<what>
  void set(std::string_view key, SpanValue value);
  /// @param what a short class of errors, not a text that may hold a client's words
  void fail(std::string_view what);
  /// Hands the record to the exporter; what comes later is ignored.
  void end(Clock::time_point at = Clock::now());

 private:
  friend class Tracer;
  TraceContext context_;
  std::unique_ptr<SpanRecord> record_;
  std::shared_ptr<trace_detail::SpanQueue> queue_;
};

/// Makes spans; the handle of a TraceExporter, or off. Copied freely, thread-safe, never blocks.
class Tracer {
 public:
  using Clock = Span::Clock;

  /// Off: no span records, contexts are handed through.
  Tracer() = default;

  /// The first span of a request in this process. With an incoming context its trace goes on, as
  /// sampled as it is there; otherwise a new trace begins, sampled by the configured ratio.
  Span start_root(std::string_view name, SpanKind kind, const TraceContext& incoming,
                  Clock::time_point start = Clock::now()) const;
  /// Records if `parent` is sampled.
  Span start(std::string_view name, SpanKind kind, const TraceContext& parent,
             Clock::time_point start = Clock::now()) const;

  bool on() const { return queue_ != nullptr; }

 private:
  friend class TraceExporter;
  explicit Tracer(std::shared_ptr<trace_detail::SpanQueue> queue) : queue_(std::move(queue)) {}
  Span make(std::string_view name, SpanKind kind, const TraceContext& context,
            const TraceContext& parent, Clock::time_point start) const;
  std::shared_ptr<trace_detail::SpanQueue> queue_;
};

}  // namespace moesaic
