#include "actors/gateway/request_metrics.hpp"

#include <string>

#include "common/metrics/metrics.hpp"

namespace moesaic {
namespace {

double seconds(RequestMetrics::Clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

/// The handles every request needs, looked up once.
struct Series {
  metrics::Histogram ttft = metrics::histogram("moesaic_request_ttft_seconds");
  metrics::Histogram inter_token = metrics::histogram("moesaic_request_inter_token_seconds");
  metrics::Histogram e2e = metrics::histogram("moesaic_request_e2e_seconds");
  metrics::Histogram release = metrics::histogram("moesaic_request_cancel_release_seconds");
  metrics::Counter prompt_tokens = metrics::counter("moesaic_request_prompt_tokens_total");
  metrics::Counter generated_tokens = metrics::counter("moesaic_request_generated_tokens_total");
};

Series& series() {
  static Series instance;
  return instance;
}

void count_finished(std::string_view reason) {
  metrics::counter("moesaic_request_finished_total", {{"reason", std::string(reason)}}).add();
}

}  // namespace

void RequestMetrics::admitted(std::size_t prompt_tokens) {
  stage_ = Stage::kPrefill;
  series().prompt_tokens.add(static_cast<double>(prompt_tokens));
}

void RequestMetrics::tokens(std::size_t count, Clock::time_point now) {
  if (count == 0) return;
  auto& all = series();
  all.generated_tokens.add(static_cast<double>(count));
  std::size_t gaps = count;
  if (stage_ != Stage::kDecode) {
    all.ttft.observe(seconds(now - arrived_));
    stage_ = Stage::kDecode;
    last_token_ = now;
    --gaps;
  }
  // Tokens that came together share the time since the one before.
  for (std::size_t i = 0; i < gaps; ++i)
    all.inter_token.observe(seconds(now - last_token_) / static_cast<double>(gaps));
  last_token_ = now;
}

void RequestMetrics::finished(std::string_view reason, Clock::time_point now) {
  series().e2e.observe(seconds(now - arrived_));
  count_finished(reason);
}

void RequestMetrics::failed(std::string_view code, Clock::time_point now) {
  if (stage_ != Stage::kDecode) return rejected(code);
  finished("error", now);
}

void RequestMetrics::cancelled(Clock::time_point now) {
  constexpr std::string_view kStages[] = {"prepare", "prefill", "decode"};
  const auto stage = kStages[static_cast<std::size_t>(stage_)];
  metrics::counter("moesaic_request_cancelled_total", {{"stage", std::string(stage)}}).add();
  if (stage_ != Stage::kPrepare) cancelled_ = now;
}

void RequestMetrics::released(Clock::time_point now) {
  if (cancelled_) series().release.observe(seconds(now - *cancelled_));
  cancelled_.reset();
}

void RequestMetrics::rejected(std::string_view code) {
  metrics::counter("moesaic_request_rejected_total", {{"reason", std::string(code)}}).add();
}

}  // namespace moesaic
