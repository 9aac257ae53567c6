#include "common/trace/exporter.hpp"

#include <future>
#include <thread>
#include <utility>

#include "common/base/log.hpp"
#include "common/http/client.hpp"
#include "common/http/url.hpp"
#include "common/trace/otlp.hpp"
#include "common/trace/span_queue.hpp"

namespace moesaic {
namespace {

constexpr unsigned kRefused = 300;  // and above

}  // namespace

class TraceExporter::Impl {
 public:
  Impl(TraceConfig config, std::string url)
      : config_(std::move(config)),
        resource_{config_.service, config_.instance, config_.version},
        url_(std::move(url)),
        queue_(std::make_shared<trace_detail::SpanQueue>(config_.sample_ratio, config_.capacity)) {
    if (url_.empty()) return;
    thread_ = std::thread([this] {
      run();
      finished_.set_value();
    });
  }
  ~Impl() {
    queue_->close();
    if (!thread_.joinable()) return;
    if (finished_.get_future().wait_for(config_.timeout) != std::future_status::ready) {
      client_.cancel();
    }
    thread_.join();
  }

  const std::shared_ptr<trace_detail::SpanQueue>& queue() const { return queue_; }
  bool on() const { return !url_.empty(); }

 private:
  void run() {
    for (;;) {
      const auto batch = queue_->take(config_.interval);
      if (!batch.empty()) {
        send(batch);
      } else if (queue_->closed()) {
        return;
      }
    }
  }

  void send(const std::vector<SpanRecord>& batch) {
    static const HttpHeaders kHeaders{{"Content-Type", "application/json"}};
    const auto answer =
        client_.request("POST", url_, otlp_json(resource_, batch), kHeaders, config_.timeout);
    std::string trouble;
    if (!answer) {
      trouble = answer.error().what;
    } else if (answer->status >= kRefused) {
      trouble = url_ + ": HTTP " + std::to_string(answer->status);
    }
    if (!trouble.empty()) queue_->count_dropped(batch.size());
    if (trouble.empty() == well_) return;
    well_ = trouble.empty();
    log(well_ ? LogLevel::kInfo : LogLevel::kWarn,
        "trace: " + (well_ ? "the collector takes spans again" : "spans are dropped: " + trouble));
  }

  const TraceConfig config_;
  const TraceResource resource_;
  const std::string url_;  ///< empty: off
  const std::shared_ptr<trace_detail::SpanQueue> queue_;
  bool well_ = true;  ///< on the thread
  HttpClient client_;
  std::promise<void> finished_;
  std::thread thread_;
};

TraceExporter::TraceExporter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

TraceExporter::~TraceExporter() = default;

Result<std::unique_ptr<TraceExporter>> TraceExporter::start(TraceConfig config) {
  if (!(config.sample_ratio >= 0 && config.sample_ratio <= 1)) {
    return moesaic::fail(
        Errc::kInvalidArgument,
        "the share of sampled traces is from 0 to 1, not " + std::to_string(config.sample_ratio));
  }
  std::string url;
  if (!config.endpoint.empty()) {
    auto parsed = parse_http_url(config.endpoint);
    if (!parsed) return moesaic::fail("trace.endpoint", parsed.error());
    if (parsed->target == "/") parsed->target = "/v1/traces";
    url = "http://" + parsed->authority() + parsed->target;
  }
  auto impl = std::make_unique<Impl>(std::move(config), std::move(url));
  return std::unique_ptr<TraceExporter>(new TraceExporter(std::move(impl)));
}

Tracer TraceExporter::tracer() const { return impl_->on() ? Tracer(impl_->queue()) : Tracer(); }

std::uint64_t TraceExporter::dropped() const { return impl_->queue()->dropped(); }

}  // namespace moesaic
