#include "common/transport/zmq_source.hpp"

namespace moesaic::transport {

void ZmqSource::make_socket(zmq::socket_type type) {
  socket_ = zmq::socket_t(shared_.context, type);
  set_options(socket_, shared_.options.limits);
  monitor_.emplace(shared_, socket_);
  data_descriptor_ = descriptor_of(socket_);
  may_have_data = false;
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
