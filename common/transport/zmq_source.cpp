#include "common/transport/zmq_source.hpp"

namespace moesaic::transport {
namespace {

// ZeroMQ reads connections in turn: after so many messages each had its turn.
constexpr std::uint64_t kMessagesPerSweep = 1024;

}  // namespace

void ZmqSource::make_socket(zmq::socket_type type) {
  socket_ = zmq::socket_t(shared_.context, type);
  set_options(socket_, shared_.options.limits);
  monitor_.emplace(shared_, socket_);
  data_descriptor_ = descriptor_of(socket_);
  may_have_data = false;
}

bool ZmqSource::read_message(bool routed) {
  const bool read = message_.read(socket_, routed, shared_.options.limits.max_frame_bytes);
  if (!read) may_have_data = false;
  if (!read || ++read_in_sweep_ >= kMessagesPerSweep) {
    ++sweeps_;
    read_in_sweep_ = 0;
  }
  return read;
}

void ZmqSource::drop_socket(int linger_ms) {
  monitor_.reset();
  data_descriptor_ = -1;
  may_have_data = false;
  if (!socket_) return;
  socket_.set(zmq::sockopt::linger, linger_ms);
  socket_.close();
}

}  // namespace moesaic::transport
