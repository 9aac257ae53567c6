#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moesaic::metrics {

/// One metric of the product. All of them are in one table (metric_list.cpp): what is not there
/// cannot be counted, shown on a dashboard or alerted on.
struct Spec {
  enum class Type : unsigned char { kCounter, kGauge, kHistogram };
  std::string_view name;  ///< moesaic_<area>_<what>_<unit>
  Type type{};
  std::string_view help;
  std::vector<std::string_view> labels;
  std::span<const double> buckets;  ///< of a histogram: upper bounds, ascending
};
std::span<const Spec> list();

using Labels = std::map<std::string, std::string>;

/// Handles stay valid for the life of the process: look them up once, not per event. All members
/// may be called from any thread and take nanoseconds. A name that is not in the list, another type
/// or other labels than listed are a bug (asserted; in release builds the value goes nowhere).
class Counter {
 public:
  void add(double value = 1);
  double value() const;

 private:
  friend Counter counter(std::string_view, const Labels&);
  void* handle_ = nullptr;
};
class Gauge {
 public:
  void set(double value);
  void add(double value);
  double value() const;

 private:
  friend Gauge gauge(std::string_view, const Labels&);
  void* handle_ = nullptr;
};
class Histogram {
 public:
  void observe(double value);

 private:
  friend Histogram histogram(std::string_view, const Labels&);
  void* handle_ = nullptr;
};

/// The process-wide series of that name and labels, made when first asked for.
Counter counter(std::string_view name, const Labels& labels = {});
Gauge gauge(std::string_view name, const Labels& labels = {});
Histogram histogram(std::string_view name, const Labels& labels = {});
/// Takes a series out of the exposition (a member that has gone); its handles stay valid, and
/// asking for it again brings it back.
void remove(std::string_view name, const Labels& labels);
/// The same for every series of that name.
void remove_all(std::string_view name);

/// Runs `collect` at the start of each `expose`, for values that are read when asked for. It must
/// not block, nor outlive what it refers to; it stays for the life of the process.
void before_expose(std::function<void()> collect);
/// Adds the series that dashboards of vLLM look for, under its names, labelled as it does.
void add_vllm_aliases(std::string model_name);

/// Everything in Prometheus' text format 0.0.4.
std::string expose();
inline constexpr std::string_view kContentType = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace moesaic::metrics
