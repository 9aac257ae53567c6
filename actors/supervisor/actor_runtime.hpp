#pragma once

#include <caf/all.hpp>
#include <type_traits>

namespace moesaic {

/// The actor system of a process: two workers that sleep when idle.
class ActorRuntime {
 public:
  caf::actor_system& system() { return system_; }

  /// Ends an actor and waits for its end; nothing if the handle is null. The handle is null
  /// afterwards.
  template <class Handle>
  void end(Handle& handle) {
    if (!handle) return;
    caf::scoped_actor self(system_);
    self->monitor(handle);
    self->send_exit(handle, caf::exit_reason::user_shutdown);
    self->receive([](const caf::down_msg&) {});
    handle = Handle{};
  }

 private:
  struct Config : caf::actor_system_config {
    Config() {
      // "sharing" sleeps when idle, "stealing" polls.
      set("scheduler.policy", caf::atom("sharing"));
      set("scheduler.max-threads", std::size_t{2});
    }
  };
  Config config_;
  caf::actor_system system_{config_};
};

}  // namespace moesaic
