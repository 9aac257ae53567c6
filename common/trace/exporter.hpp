#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "common/base/result.hpp"
#include "common/trace/tracer.hpp"

namespace moesaic {

struct TraceConfig {
  std::string endpoint{};                     ///< http://host:port of a collector; empty: no traces
  std::string service{};                      ///< service.name, such as moesaic-gateway
  std::string instance{};                     ///< service.instance.id: the node's name
  std::string version{};                      ///< service.version
  double sample_ratio = 1;                    ///< 0 to 1, of traces that begin here
  std::size_t capacity = 4096;                ///< spans that may wait
  std::chrono::milliseconds interval{1'000};  ///< longest wait of a span
  std::chrono::milliseconds timeout{2'000};   ///< of one batch
};

/// Sends finished spans to a collector as OTLP/HTTP JSON, on a thread of its own. Owned by main.
/// A collector that is down or slow costs spans, which are counted, and nothing else.
class TraceExporter {
 public:
  /// @errors kInvalidArgument, kUnsupported: the endpoint; kInvalidArgument: the ratio
  [[nodiscard]] static Result<std::unique_ptr<TraceExporter>> start(TraceConfig config);
  /// Sends what waits, for at most `timeout`.
  ~TraceExporter();
  TraceExporter(const TraceExporter&) = delete;
  TraceExporter& operator=(const TraceExporter&) = delete;

  /// Off if there is no endpoint. May outlive the exporter: its spans are then dropped.
  Tracer tracer() const;
  /// Spans that no collector took.
  std::uint64_t dropped() const;

 private:
  class Impl;
  explicit TraceExporter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace moesaic
