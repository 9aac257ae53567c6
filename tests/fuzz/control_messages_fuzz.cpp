// Input: a frame type, then bytes as its message, from a registered shard to the router's control
// and from the router to a member. Nothing crashes, and the shard stays what it is.
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "common/cluster/control_plane.hpp"
#include "common/cluster/membership.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace moesaic::cluster;
  namespace transport = moesaic::transport;
  if (size == 0) return 0;
  ControlConfig config;
  config.name = "r";
  config.version = "0.1.0";
  config.geometry.layer_is_moe = {true, true};
  config.geometry.experts = {4, 2};
  auto control = ControlPlane::make(config);
  if (!control) std::abort();
  ControlPlane::Clock::time_point now{std::chrono::hours(1)};
  RegistryEvent leading;
  leading.term = 1;
  control->on_registry(leading, now);

  transport::Event event;
  event.kind = transport::Event::Kind::kUp;
  event.peer = 1;
  event.identity.role = "expert-shard";
  event.identity.name = "s0";
  control->on_event(event, now);
  Member member;
  member.role = "expert-shard";
  member.name = "s0";
  member.version = "0.1.0";
  member.wire_version = 1;
  event.kind = transport::Event::Kind::kFrame;
  event.frame = make_message(transport::FrameType::kRegister, member);
  control->on_event(event, now);
  control->tick(now += std::chrono::seconds(2));

  const auto frame = [&] {
    transport::Frame made;
    made.type = static_cast<transport::FrameType>(64 + data[0] % 16);
    made.tensors.emplace_back(moesaic::DType::kU8,
                              std::vector<std::int64_t>{static_cast<std::int64_t>(size - 1)});
    if (size > 1) std::memcpy(made.tensors[0].bytes.data(), data + 1, size - 1);
    return made;
  };

  Membership::Callbacks callbacks;
  callbacks.send = [](transport::PeerId, const transport::Frame&) {};
  callbacks.on_prepare = callbacks.on_release = [](const PlacementTable& table) {
    if (table.owners.size() != table.layers * (table.experts[0] + table.experts[1]) &&
        !table.owners.empty())
      std::abort();
  };
  Membership membership(member, {}, callbacks);
  event.kind = transport::Event::Kind::kUp;
  membership.on_event(event, now);
  event.kind = transport::Event::Kind::kFrame;
  event.frame = frame();
  membership.on_event(event, now);
  membership.tick(now);

  event.frame = frame();
  control->on_event(event, now);
  control->tick(now += std::chrono::milliseconds(100));
  if (control->view()->find("expert-shard", "s0") == nullptr) std::abort();
  return 0;
}
