#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "common/transport/carrier.hpp"
#include "common/transport/wire.hpp"

namespace moesaic::test {

/// What may happen to a frame on its way.
enum class Fault {
  kNone,
  kDrop,          ///< it is lost
  kDelay,         ///< it arrives later (incoming frames only), see Faults::delay
  kTruncate,      ///< its last tensor is lost
  kRepeat,        ///< it arrives twice
  kCloseInstead,  ///< the connection breaks before it
  kCloseAfter,    ///< the connection breaks right after it
};

/// What a FaultyCarrier does; shared with the test, which may change it at any time.
class Faults {
 public:
  using Rule = std::function<Fault(const transport::Frame&)>;
  std::chrono::milliseconds delay{100};

  void outgoing(Rule rule) { set(outgoing_, std::move(rule)); }
  void incoming(Rule rule) { set(incoming_, std::move(rule)); }
  Fault on_outgoing(const transport::Frame& frame) { return ask(outgoing_, frame); }
  Fault on_incoming(const transport::Frame& frame) { return ask(incoming_, frame); }

 private:
  void set(Rule& rule, Rule to) {
    const std::lock_guard lock(mutex_);
    rule = std::move(to);
  }
  Fault ask(const Rule& rule, const transport::Frame& frame) {
    const std::lock_guard lock(mutex_);
    return rule ? rule(frame) : Fault::kNone;
  }
  std::mutex mutex_;
  Rule outgoing_, incoming_;
};

/// Another carrier with faults.
class FaultyCarrier final : public transport::Carrier {
 public:
  FaultyCarrier(std::unique_ptr<transport::Carrier> inner, std::shared_ptr<Faults> faults)
      : inner_(std::move(inner)), faults_(std::move(faults)) {}

  Result<transport::Address> listen(const transport::Address& address) override {
    return inner_->listen(address);
  }
  Result<transport::ConnectionId> connect(const transport::Address& address) override {
    return inner_->connect(address);
  }
  void close(transport::ConnectionId connection) override { inner_->close(connection); }
  void wake() override { inner_->wake(); }

  Result<void> send(transport::ConnectionId connection, transport::Frame frame) override {
    const auto fault = faults_->on_outgoing(frame);
    switch (fault) {
      case Fault::kDrop:
        return {};
      case Fault::kTruncate:
        if (!frame.tensors.empty()) frame.tensors.pop_back();
        break;
      case Fault::kRepeat:
        if (auto sent = inner_->send(connection, copy(frame)); !sent) return sent;
        break;
      case Fault::kCloseInstead:
        break_off(connection);
        return {};
      default:
        break;
    }
    auto sent = inner_->send(connection, std::move(frame));
    if (fault == Fault::kCloseAfter) break_off(connection);
    return sent;
  }

  Result<transport::CarrierEvent> receive(std::chrono::steady_clock::time_point deadline) override {
    using Clock = std::chrono::steady_clock;
    for (;;) {
      if (!pending_.empty()) {
        auto event = std::move(pending_.front());
        pending_.pop_front();
        return event;
      }
      if (!late_.empty() && late_.begin()->first <= Clock::now()) {
        auto event = std::move(late_.begin()->second);
        late_.erase(late_.begin());
        return event;
      }
      const auto until = late_.empty() ? deadline : std::min(deadline, late_.begin()->first);
      auto event = inner_->receive(until);
      if (!event) {
        if (until < deadline) continue;
        return event;
      }
      if (event->kind != transport::CarrierEvent::Kind::kFrame) return event;
      switch (faults_->on_incoming(event->frame)) {
        case Fault::kDrop:
          continue;
        case Fault::kDelay:
          late_.emplace(Clock::now() + faults_->delay, std::move(*event));
          continue;
        case Fault::kTruncate:
          if (!event->frame.tensors.empty()) event->frame.tensors.pop_back();
          return event;
        case Fault::kRepeat:
          pending_.push_back(frame_event(event->connection, copy(event->frame)));
          return event;
        case Fault::kCloseInstead:
          break_off(event->connection);
          continue;
        case Fault::kCloseAfter:
          break_off(event->connection);
          return event;
        case Fault::kNone:
          return event;
      }
    }
  }

 private:
  static transport::Frame copy(const transport::Frame& frame) {
    std::vector<std::byte> bytes(transport::encoded_size(frame));
    transport::encode(frame, bytes);
    return *transport::decode(bytes);
  }
  static transport::CarrierEvent frame_event(transport::ConnectionId from, transport::Frame frame) {
    transport::CarrierEvent event;
    event.kind = transport::CarrierEvent::Kind::kFrame;
    event.connection = from;
    event.frame = std::move(frame);
    return event;
  }

  /// To the endpoint above it looks as if the peer had gone.
  void break_off(transport::ConnectionId connection) {
    inner_->close(connection);
    transport::CarrierEvent closed;
    closed.kind = transport::CarrierEvent::Kind::kClosed;
    closed.connection = connection;
    closed.detail = "broken off by the test";
    pending_.push_back(std::move(closed));
  }

  std::unique_ptr<transport::Carrier> inner_;
  std::shared_ptr<Faults> faults_;
  std::deque<transport::CarrierEvent> pending_;
  std::multimap<std::chrono::steady_clock::time_point, transport::CarrierEvent> late_;
};

}  // namespace moesaic::test
