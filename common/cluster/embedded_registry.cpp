#include <mutex>
#include <utility>

#include "common/cluster/registry.hpp"

namespace moesaic::cluster {
namespace {

/// Its events come inside `start` and `store`.
class EmbeddedRegistry final : public Registry {
 public:
  EmbeddedRegistry(std::string name, std::uint64_t term) : name_(std::move(name)), term_(term) {}

  void start(std::function<void(RegistryEvent)> on_event) override {
    const std::lock_guard lock(mutex_);
    on_event_ = std::move(on_event);
    on_event_({RegistryEvent::Kind::kLeading, term_, name_, 0, {}});
  }

  Result<void> store(std::uint64_t term, std::uint32_t epoch, const std::string& yaml) override {
    const std::lock_guard lock(mutex_);
    if (!on_event_ || term != term_) {
      return fail(Errc::kUnavailable,
                  "registry: " + name_ + " does not lead in term " + std::to_string(term));
    }
    if (epoch <= epoch_) {
      return fail(Errc::kInvalidArgument, "registry: placement of epoch " + std::to_string(epoch) +
                                              ", but epoch " + std::to_string(epoch_) +
                                              " is stored");
    }
    epoch_ = epoch;
    on_event_({RegistryEvent::Kind::kPlacement, term_, name_, epoch, yaml});
    return {};
  }

  void stop() override {
    const std::lock_guard lock(mutex_);
    on_event_ = nullptr;
  }

 private:
  const std::string name_;
  const std::uint64_t term_;
  std::mutex mutex_;
  std::function<void(RegistryEvent)> on_event_;  ///< empty: not started, or stopped
  std::uint32_t epoch_ = 0;
};

}  // namespace

std::unique_ptr<Registry> make_embedded_registry(std::string name, std::uint64_t term) {
  return std::make_unique<EmbeddedRegistry>(std::move(name), term);
}

}  // namespace moesaic::cluster
