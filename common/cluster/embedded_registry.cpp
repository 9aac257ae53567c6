#include <mutex>
#include <utility>

#include "common/base/log.hpp"
#include "common/base/read_file.hpp"
#include "common/base/write_file.hpp"
#include "common/cluster/registry.hpp"

namespace moesaic::cluster {
namespace {

constexpr std::size_t kMaxPlacementBytes = std::size_t{1} << 20;

/// Its events come inside `start` and `store`.
class EmbeddedRegistry final : public Registry {
 public:
  EmbeddedRegistry(std::string name, std::uint64_t term, std::filesystem::path kept)
      : name_(std::move(name)), term_(term), kept_(std::move(kept)) {}

  void start(std::function<void(RegistryEvent)> on_event) override {
    const std::lock_guard lock(mutex_);
    on_event_ = std::move(on_event);
    if (!kept_.empty()) tell_kept();
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
    if (!kept_.empty()) MOESAIC_CHECK(keep(yaml));
    epoch_ = epoch;
    on_event_({RegistryEvent::Kind::kPlacement, term_, name_, epoch, yaml});
    return {};
  }

  void stop() override {
    const std::lock_guard lock(mutex_);
    on_event_ = nullptr;
  }

 private:
  void tell_kept() {
    auto yaml = read_file(kept_, kMaxPlacementBytes);
    if (yaml) {
      log(LogLevel::kInfo, "registry: the placement kept in " + kept_.string() +
                               " is taken; without that file, placement.file would be");
      // Epochs go on from what the shards say, so the first will do.
      on_event_({RegistryEvent::Kind::kPlacement, term_, name_, 1, std::move(*yaml)});
    } else if (yaml.error().code != Errc::kNotFound) {
      log(LogLevel::kError, "registry: " + yaml.error().what);
    }
  }

  /// No text, even ranges, is what there is without a file.
  Result<void> keep(const std::string& yaml) const {
    if (!yaml.empty()) return write_file(kept_, yaml);
    std::error_code code;
    std::filesystem::remove(kept_, code);
    return code ? Result<void>(fail(Errc::kIo, kept_.string() + ": " + code.message()))
                : Result<void>{};
  }

  const std::string name_;
  const std::uint64_t term_;
  const std::filesystem::path kept_;  ///< empty: nothing is kept
  std::mutex mutex_;
  std::function<void(RegistryEvent)> on_event_;  ///< empty: not started, or stopped
  std::uint32_t epoch_ = 0;
};

}  // namespace

std::unique_ptr<Registry> make_embedded_registry(std::string name, std::uint64_t term,
                                                 std::filesystem::path kept) {
  return std::make_unique<EmbeddedRegistry>(std::move(name), term, std::move(kept));
}

}  // namespace moesaic::cluster
