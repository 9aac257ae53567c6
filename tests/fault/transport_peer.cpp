// The other process of transport tests:
//   transport_peer echo ADDRESS [FOLDER ROLE NAME]       listens, says where (address and key),
//   sends
//                                                        back each frame it gets
//   transport_peer ask ADDRESS KEY [FOLDER ROLE NAME]    connects, sends a frame when the
//   connection
//                                                        opens; a line for each event
// KEY is - where there is none. Ends when it is killed.
#include <cstdio>
#include <string>
#include <vector>

#include "common/transport/carriers.hpp"

namespace moesaic::transport {
namespace {

int complain(const Error& error) {
  std::fprintf(stderr, "transport_peer: %s\n", error.what.c_str());
  return 1;
}

Result<std::unique_ptr<Carrier>> make(const std::vector<std::string>& keys) {
  ZmqOptions options;
  if (keys.size() == 3) {
    MOESAIC_TRY(auto ring, KeyRing::load(keys[0], keys[1], keys[2]));
    options.keys = std::make_shared<const KeyRing>(std::move(ring));
  }
  return make_zmq_carrier(std::move(options));
}

int echo(Carrier& carrier, const std::string& where) {
  const auto address = parse_address(where);
  if (!address) return complain(address.error());
  const auto bound = carrier.listen(*address);
  if (!bound) return complain(bound.error());
  std::printf("%s %s\n", to_string(*bound).c_str(),
              bound->server_key.empty() ? "-" : bound->server_key.c_str());
  std::fflush(stdout);
  while (true) {
    auto event = carrier.receive(std::chrono::steady_clock::time_point::max());
    if (!event || event->kind != CarrierEvent::Kind::kFrame) continue;
    // Full or gone: the asker's loss.
    static_cast<void>(carrier.send(event->connection, std::move(event->frame)));
  }
}

int ask(Carrier& carrier, const std::string& where, const std::string& key) {
  const auto address = parse_address(where, key == "-" ? "" : key);
  if (!address) return complain(address.error());
  const auto connection = carrier.connect(*address);
  if (!connection) return complain(connection.error());
  while (true) {
    const auto event = carrier.receive(std::chrono::steady_clock::time_point::max());
    if (!event) continue;
    const bool opened = event->kind == CarrierEvent::Kind::kOpened;
    if (opened && !carrier.send(*connection, Frame{})) return 1;
    std::printf("%s\n", opened                                       ? "opened"
                        : event->kind == CarrierEvent::Kind::kClosed ? "closed"
                                                                     : "other");
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace moesaic::transport

int main(int argc, char** argv) {
  using namespace moesaic::transport;
  const std::vector<std::string> words(argv + 1, argv + argc);
  const std::size_t own = !words.empty() && words[0] == "ask" ? 3 : 2;
  if (words.size() < own) return 2;
  auto carrier = make({words.begin() + static_cast<std::ptrdiff_t>(own), words.end()});
  if (!carrier) return complain(carrier.error());
  return own == 3 ? ask(**carrier, words[1], words[2]) : echo(**carrier, words[1]);
}
