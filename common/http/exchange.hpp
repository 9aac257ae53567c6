#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "common/http/request_count.hpp"
#include "common/http/responder.hpp"
#include "common/http/wire_format.hpp"

/// Inside of common/http: not for others.
namespace moesaic::http_detail {

struct ServerCore;
class Session;

/// The answer to one request on its way out. Filled by posts of its responder, emptied by the
/// session; on the io thread only.
class Exchange {
 public:
  Exchange(const ServerCore& core, std::weak_ptr<Session> session, AnswerFraming framing,
           RequestCount count);

  // For the responder's posts.
  void send(const HttpAnswer& answer);
  void begin_stream(StreamOptions options);
  void write(std::string_view piece);
  void end();
  void on_close(std::function<void()> callback);
  void abandon();

  // For the session.
  std::string take_output();
  bool has_output() const { return !output_.empty(); }
  bool complete() const { return state_ == State::kComplete; }
  /// Whether the connection can serve another request after this answer.
  bool keeps_connection() const { return keeps_connection_; }
  void forbid_keep_alive();
  /// Silence after which `ping` is due; nothing is due when zero.
  std::chrono::milliseconds ping_interval() const;
  void ping();
  /// Nothing more will be delivered: runs the callback unless complete.
  void client_gone();

  const std::string& request_id() const { return framing_.request_id; }

 private:
  enum class State { kOpen, kStreaming, kComplete, kGone };
  void completed();
  void changed();

  const ServerCore& core_;
  std::weak_ptr<Session> session_;
  AnswerFraming framing_;
  RequestCount count_;
  StreamOptions stream_;
  State state_ = State::kOpen;
  bool keeps_connection_;
  std::string output_;
  std::function<void()> callback_;
};

/// The handle given to a handler.
std::shared_ptr<Responder> make_responder(std::weak_ptr<ServerCore> core,
                                          std::shared_ptr<Exchange> exchange);

}  // namespace moesaic::http_detail
