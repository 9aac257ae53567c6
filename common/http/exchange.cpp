#include "common/http/exchange.hpp"

#include <boost/asio/post.hpp>
#include <utility>

#include "common/base/log.hpp"
#include "common/http/session.hpp"

namespace moesaic::http_detail {
namespace {

namespace asio = boost::asio;

class ExchangeResponder final : public Responder {
 public:
  ExchangeResponder(std::weak_ptr<ServerCore> core, std::shared_ptr<Exchange> exchange)
      : core_(std::move(core)), exchange_(std::move(exchange)) {}
  ~ExchangeResponder() override {
    on_executor([](Exchange& exchange) { exchange.abandon(); });
  }

  void send(HttpAnswer answer) override {
    on_executor([answer = std::move(answer)](Exchange& exchange) { exchange.send(answer); });
  }
  void begin_stream(StreamOptions options) override {
    on_executor([options = std::move(options)](Exchange& exchange) mutable {
      exchange.begin_stream(std::move(options));
    });
  }
  void write(std::string piece) override {
    on_executor([piece = std::move(piece)](Exchange& exchange) { exchange.write(piece); });
  }
  void end() override {
    on_executor([](Exchange& exchange) { exchange.end(); });
  }
  void on_close(std::function<void()> callback) override {
    on_executor([callback = std::move(callback)](Exchange& exchange) mutable {
      exchange.on_close(std::move(callback));
    });
  }
  void post(std::function<void()> task, std::chrono::milliseconds delay) override {
    const auto core = core_.lock();
    if (!core) return;
    if (delay.count() <= 0) {
      asio::post(core->io, std::move(task));
      return;
    }
    auto timer = std::make_shared<asio::steady_timer>(core->io, delay);
    auto& waiting = *timer;
    waiting.async_wait(
        [timer = std::move(timer), task = std::move(task)](const boost::system::error_code& error) {
          if (!error) task();
        });
  }

 private:
  // The core outlives what it holds, so a handler keeps the exchange, never the core.
  template <class F>
  void on_executor(F&& f) {
    if (const auto core = core_.lock()) {
      asio::post(core->io,
                 [exchange = exchange_, f = std::forward<F>(f)]() mutable { f(*exchange); });
    }
  }

  std::weak_ptr<ServerCore> core_;
  std::shared_ptr<Exchange> exchange_;
};

}  // namespace

std::shared_ptr<Responder> make_responder(std::weak_ptr<ServerCore> core,
                                          std::shared_ptr<Exchange> exchange) {
  return std::make_shared<ExchangeResponder>(std::move(core), std::move(exchange));
}

Exchange::Exchange(const ServerCore& core, std::weak_ptr<Session> session, AnswerFraming framing,
                   RequestCount count)
    : core_(core),
      session_(std::move(session)),
      framing_(std::move(framing)),
      count_(std::move(count)),
      keeps_connection_(framing_.keep_alive) {}

void Exchange::send(const HttpAnswer& answer) {
  if (state_ != State::kOpen) return;
  count_.answered(answer.status);
  output_ += format_answer(answer, framing_);
  completed();
}

void Exchange::begin_stream(StreamOptions options) {
  if (state_ != State::kOpen) return;
  count_.answered(200);
  stream_ = std::move(options);
  output_ += format_head(200, stream_.headers, framing_, std::nullopt);
  keeps_connection_ = keeps_connection_ && framing_.http11;
  state_ = State::kStreaming;
  changed();
}

void Exchange::write(std::string_view piece) {
  if (state_ != State::kStreaming || piece.empty() || framing_.head) return;
  output_ += format_piece(piece, framing_);
  if (output_.size() > core_.config.unsent_limit) {
    if (const auto session = session_.lock()) session->drop();
    return;
  }
  changed();
}

void Exchange::end() {
  if (state_ != State::kStreaming) return;
  if (!framing_.head) output_ += format_last(framing_);
  completed();
}

void Exchange::on_close(std::function<void()> callback) {
  if (state_ == State::kGone) {
    callback();
  } else if (state_ != State::kComplete) {
    callback_ = std::move(callback);
  }
}

void Exchange::abandon() {
  if (state_ == State::kOpen) {
    log(LogLevel::kError, "http: request " + framing_.request_id + " was dropped unanswered");
    send(core_.refusal({HttpFaultKind::kInternal, 0, "", framing_.request_id}));
  } else if (state_ == State::kStreaming) {
    if (const auto session = session_.lock()) session->drop();
  }
}

std::string Exchange::take_output() { return std::exchange(output_, {}); }

void Exchange::forbid_keep_alive() {
  framing_.keep_alive = false;
  keeps_connection_ = false;
}

std::chrono::milliseconds Exchange::ping_interval() const {
  return state_ == State::kStreaming && !stream_.ping.empty() ? stream_.ping_interval
                                                              : std::chrono::milliseconds{0};
}

void Exchange::ping() { write(stream_.ping); }

void Exchange::client_gone() {
  if (state_ == State::kComplete || state_ == State::kGone) return;
  if (state_ == State::kOpen) count_.answered(RequestCount::kClientGone);
  state_ = State::kGone;
  output_.clear();
  if (const auto callback = std::exchange(callback_, nullptr)) callback();
}

void Exchange::completed() {
  state_ = State::kComplete;
  callback_ = nullptr;
  changed();
}

void Exchange::changed() {
  if (const auto session = session_.lock()) session->wake();
}

}  // namespace moesaic::http_detail
