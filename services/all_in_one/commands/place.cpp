#include <chrono>
#include <cstdio>

#include "common/base/read_file.hpp"
#include "common/base/version.hpp"
#include "common/cluster/messages.hpp"
#include "common/transport/carriers.hpp"
#include "common/transport/endpoint.hpp"
#include "common/transport/failure.hpp"
#include "services/all_in_one/commands/commands.hpp"

namespace moesaic {
namespace {

using Clock = std::chrono::steady_clock;
using transport::Event;
using transport::FrameType;

struct Options {
  std::string file;
  std::string router = "tcp://127.0.0.1:7400";
  std::string router_name = "router-0";
  std::string keys;
  std::string name = "admin";
  unsigned timeout_s = 600;
};

Result<std::unique_ptr<transport::Endpoint>> open_endpoint(const Options& options,
                                                           transport::Address& router) {
  transport::ZmqOptions zmq;
  std::string server_key;
  if (!options.keys.empty()) {
    MOESAIC_TRY(auto ring, transport::KeyRing::load(options.keys, "tool", options.name));
    server_key = ring.key_of("router", options.router_name);
    zmq.keys = std::make_shared<const transport::KeyRing>(std::move(ring));
  }
  MOESAIC_TRY(router, transport::parse_address(options.router, server_key));
  MOESAIC_TRY(auto carrier, transport::make_carrier(std::move(zmq)));
  transport::EndpointConfig config;
  config.self.role = "tool";
  config.self.name = options.name;
  config.self.incarnation = static_cast<std::uint32_t>(
      std::chrono::duration_cast<std::chrono::seconds>(Clock::now().time_since_epoch()).count());
  config.self.version = kVersion;
  return std::make_unique<transport::Endpoint>(std::move(config), std::move(carrier));
}

/// Sends the file as soon as the router is there, and waits for what comes of it.
Result<std::uint32_t> place(const Options& options) {
  MOESAIC_TRY(auto yaml, read_file(options.file, std::size_t{1} << 20));
  transport::Address router;
  MOESAIC_TRY(const auto endpoint, open_endpoint(options, router));
  MOESAIC_TRY(const auto peer, endpoint->connect(router));
  const auto deadline = Clock::now() + std::chrono::seconds(options.timeout_s);
  std::string detail = "no answer";
  while (true) {
    const auto event = endpoint->receive(deadline);
    if (!event)
      return fail(Errc::kUnavailable, to_string(router) + ": " + detail + " in " +
                                          std::to_string(options.timeout_s) + " s");
    if (event->kind == Event::Kind::kDown) detail = event->detail;
    if (event->kind == Event::Kind::kUp) {
      auto frame = make_message(FrameType::kPlace, cluster::Place{yaml});
      frame.sequence = 1;
      MOESAIC_CHECK(endpoint->send(peer, std::move(frame)));
    }
    if (event->kind != Event::Kind::kFrame) continue;
    if (event->frame.type == FrameType::kFailure)
      return tl::make_unexpected(transport::read_failure(event->frame));
    if (event->frame.type == FrameType::kView && event->frame.sequence == 1) {
      MOESAIC_TRY(const auto view, transport::read_message<cluster::View>(event->frame));
      return view.placement.epoch;
    }
  }
}

}  // namespace

void add_place(CLI::App& app, int& status) {
  auto* command = app.add_subcommand(
      "place",
      "move the experts of a running cluster to another placement; returns when it is done");
  const auto options = std::make_shared<Options>();
  command->add_option("file", options->file, "placement file")->required();
  command->add_option("--router", options->router, "control of the leading router")
      ->capture_default_str();
  command->add_option("--router-name", options->router_name, "its name, for its key")
      ->capture_default_str();
  command->add_option("--keys", options->keys, "folder of CURVE keys; this tool's is tool-NAME");
  command->add_option("--name", options->name, "of this tool")->capture_default_str();
  command->add_option("--timeout", options->timeout_s, "seconds")->capture_default_str();
  command->callback([options, &status] {
    const auto epoch = place(*options);
    if (!epoch) {
      status = report(epoch.error());
    } else {
      std::printf("placement of epoch %u is in force\n", *epoch);
    }
  });
}

}  // namespace moesaic
