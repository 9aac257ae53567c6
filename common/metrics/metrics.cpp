#include "common/metrics/metrics.hpp"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <cassert>
#include <memory>
#include <mutex>
#include <sstream>
#include <utility>
#include <variant>

#include "common/metrics/vllm_aliases.hpp"

namespace moesaic::metrics {
namespace {

// Not the library's own Family: it destroys what it removes, and handles must stay valid.
struct Series {
  std::variant<std::unique_ptr<prometheus::Counter>, std::unique_ptr<prometheus::Gauge>,
               std::unique_ptr<prometheus::Histogram>>
      value;
  bool shown = true;
};

struct Family {
  const Spec* spec = nullptr;
  std::map<Labels, Series> series;
};

class Store {
 public:
  Store() {
    for (const auto& spec : list()) families_[spec.name].spec = &spec;
  }

  template <class T>
  T* get(std::string_view name, Spec::Type type, const Labels& labels) {
    const auto it = families_.find(name);
    const bool known = it != families_.end() && it->second.spec->type == type &&
                       has_labels(*it->second.spec, labels);
    assert(known && "not in the list of metrics like this");
    if (!known) return nullptr;
    const std::lock_guard lock(mutex_);
    auto& series = it->second.series[labels];
    series.shown = true;
    auto& held = series.value;
    if (!std::holds_alternative<std::unique_ptr<T>>(held) || !std::get<std::unique_ptr<T>>(held))
      held = make<T>(*it->second.spec);
    return std::get<std::unique_ptr<T>>(held).get();
  }

  void hide(std::string_view name, const Labels* labels) {
    const auto it = families_.find(name);
    assert(it != families_.end() && "not in the list of metrics");
    if (it == families_.end()) return;
    const std::lock_guard lock(mutex_);
    for (auto& [key, series] : it->second.series)
      if (!labels || key == *labels) series.shown = false;
  }

  void before_expose(std::function<void()> collect) {
    const std::lock_guard lock(mutex_);
    collectors_.push_back(std::move(collect));
  }

  void add_vllm_aliases(std::string model_name) {
    const std::lock_guard lock(mutex_);
    alias_model_ = std::move(model_name);
  }

  std::string expose() {
    std::vector<std::function<void()>> collectors;
    {
      const std::lock_guard lock(mutex_);
      collectors = collectors_;
    }
    for (const auto& collect : collectors) collect();
    std::vector<prometheus::MetricFamily> families;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [name, family] : families_)
        if (auto text = collected(family); !text.metric.empty())
          families.push_back(std::move(text));
      if (!alias_model_.empty()) append_vllm_aliases(alias_model_, families);
    }
    return prometheus::TextSerializer().Serialize(families);
  }

 private:
  static bool has_labels(const Spec& spec, const Labels& labels) {
    return labels.size() == spec.labels.size() &&
           std::all_of(spec.labels.begin(), spec.labels.end(),
                       [&](auto name) { return labels.count(std::string(name)) == 1; });
  }

  template <class T>
  static std::unique_ptr<T> make(const Spec& spec) {
    if constexpr (std::is_same_v<T, prometheus::Histogram>) {
      return std::make_unique<T>(std::vector<double>(spec.buckets.begin(), spec.buckets.end()));
    } else {
      return std::make_unique<T>();
    }
  }

  static prometheus::MetricFamily collected(const Family& family) {
    prometheus::MetricFamily out;
    out.name = family.spec->name;
    out.help = family.spec->help;
    switch (family.spec->type) {
      case Spec::Type::kCounter:
        out.type = prometheus::MetricType::Counter;
        break;
      case Spec::Type::kGauge:
        out.type = prometheus::MetricType::Gauge;
        break;
      case Spec::Type::kHistogram:
        out.type = prometheus::MetricType::Histogram;
        break;
    }
    for (const auto& [labels, series] : family.series) {
      if (!series.shown) continue;
      auto metric = std::visit([](const auto& value) { return value->Collect(); }, series.value);
      for (const auto& [name, value] : labels) metric.label.push_back({name, value});
      out.metric.push_back(std::move(metric));
    }
    return out;
  }

  std::map<std::string_view, Family> families_;  // its keys never change; series under the mutex
  std::mutex mutex_;
  std::vector<std::function<void()>> collectors_;
  std::string alias_model_;
};

// Never destroyed: threads may count while the process ends.
Store& store() {
  static auto* const instance = new Store;
  return *instance;
}

}  // namespace

void Counter::add(double value) {
  if (handle_) static_cast<prometheus::Counter*>(handle_)->Increment(value);
}
double Counter::value() const {
  return handle_ ? static_cast<const prometheus::Counter*>(handle_)->Value() : 0;
}
void Gauge::set(double value) {
  if (handle_) static_cast<prometheus::Gauge*>(handle_)->Set(value);
}
void Gauge::add(double value) {
  if (handle_) static_cast<prometheus::Gauge*>(handle_)->Increment(value);
}
double Gauge::value() const {
  return handle_ ? static_cast<const prometheus::Gauge*>(handle_)->Value() : 0;
}
void Histogram::observe(double value) {
  if (handle_) static_cast<prometheus::Histogram*>(handle_)->Observe(value);
}

Counter counter(std::string_view name, const Labels& labels) {
  Counter made;
  made.handle_ = store().get<prometheus::Counter>(name, Spec::Type::kCounter, labels);
  return made;
}
Gauge gauge(std::string_view name, const Labels& labels) {
  Gauge made;
  made.handle_ = store().get<prometheus::Gauge>(name, Spec::Type::kGauge, labels);
  return made;
}
Histogram histogram(std::string_view name, const Labels& labels) {
  Histogram made;
  made.handle_ = store().get<prometheus::Histogram>(name, Spec::Type::kHistogram, labels);
  return made;
}

void remove(std::string_view name, const Labels& labels) { store().hide(name, &labels); }
void remove_all(std::string_view name) { store().hide(name, nullptr); }
void before_expose(std::function<void()> collect) { store().before_expose(std::move(collect)); }
void add_vllm_aliases(std::string model_name) { store().add_vllm_aliases(std::move(model_name)); }
std::string expose() { return store().expose(); }

}  // namespace moesaic::metrics
