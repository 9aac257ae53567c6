#include "common/transport/link.hpp"

#include <mutex>
#include <vector>

namespace moesaic::transport {
namespace {

constexpr std::size_t kMaxTasks = 4096;
constexpr std::chrono::seconds kRound{1};  // no receive waits longer

}  // namespace

struct Link::Impl {
  using Task = std::function<void(Endpoint&)>;

  std::unique_ptr<Endpoint> endpoint;
  OnEvent on_event;
  std::mutex mutex;
  std::vector<Task> tasks;  // under mutex
  bool ending = false;      // under mutex
  std::thread thread;

  /// @return false: it was the last time
  bool run_tasks() {
    std::vector<Task> due;
    bool last = false;
    {
      const std::lock_guard lock(mutex);
      due.swap(tasks);
      last = ending;
    }
    for (auto& task : due) task(*endpoint);
    return !last;
  }

  void run() {
    while (run_tasks()) {
      auto event = endpoint->receive(std::chrono::steady_clock::now() + kRound);
      if (event && event->kind != Event::Kind::kWoken) on_event(*endpoint, std::move(*event));
    }
    endpoint.reset();  // on the thread that used it
  }
};

Link::Link(std::unique_ptr<Endpoint> endpoint, OnEvent on_event) : impl_(std::make_unique<Impl>()) {
  impl_->endpoint = std::move(endpoint);
  impl_->on_event = std::move(on_event);
  impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
}

Link::~Link() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->ending = true;
    impl_->endpoint->wake();
  }
  impl_->thread.join();
}

Result<void> Link::post(std::function<void(Endpoint&)> task) {
  const std::lock_guard lock(impl_->mutex);
  if (impl_->ending) return fail(Errc::kUnavailable, "the link is ending");
  if (impl_->tasks.size() >= kMaxTasks)
    return fail(Errc::kOverloaded, std::to_string(kMaxTasks) + " tasks wait for the link");
  impl_->tasks.push_back(std::move(task));
  // The first of a batch wakes; under the lock, so that the endpoint still lives.
  if (impl_->tasks.size() == 1) impl_->endpoint->wake();
  return {};
}

Result<void> Link::send(PeerId peer, Frame frame, std::function<void(const Error&)> failed) {
  // std::function copies; the frame moves.
  auto shared = std::make_shared<Frame>(std::move(frame));
  return post([peer, shared, failed = std::move(failed)](Endpoint& endpoint) {
    const auto sent = endpoint.send(peer, std::move(*shared));
    if (!sent && failed) failed(sent.error());
  });
}

}  // namespace moesaic::transport
