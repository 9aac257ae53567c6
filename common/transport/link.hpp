#pragma once

#include <functional>
#include <memory>
#include <thread>

#include "common/transport/endpoint.hpp"

namespace moesaic::transport {

/// An endpoint with a thread of its own, for everything that is not per layer: requests, tokens,
/// control. Others post work to it; events go to a callback that must only post on (to an actor).
/// Owned by main or an actor's state; destruction closes the endpoint and joins the thread.
class Link {
 public:
  using OnEvent = std::function<void(Endpoint&, Event)>;

  /// @param on_event called on the link's thread, maybe before this returns; may use the endpoint
  /// within the call
  Link(std::unique_ptr<Endpoint> endpoint, OnEvent on_event);
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  /// Runs `task` on the link's thread, soon, in order. Any thread.
  /// @errors kOverloaded: too many are waiting; kUnavailable: the link is ending
  [[nodiscard]] Result<void> post(std::function<void(Endpoint&)> task);
  /// `post` of a send. A frame that cannot be sent is told to `failed` (on the link's thread), if
  /// given.
  [[nodiscard]] Result<void> send(PeerId peer, Frame frame,
                                  std::function<void(const Error&)> failed = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moesaic::transport
