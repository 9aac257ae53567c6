#include "actors/supervisor/node.hpp"

#include <boost/json.hpp>
#include <ctime>
#include <fstream>

#include "actors/supervisor/service_settings.hpp"
#include "common/base/log.hpp"
#include "common/base/version.hpp"
#include "common/cluster/view_json.hpp"
#include "common/kernels/isa.hpp"
#include "common/transport/wire.hpp"

namespace moesaic {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTick{50};

std::int64_t wall_clock_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

/// Higher in each life: seconds since 2026.
std::uint32_t incarnation_now() {
  return static_cast<std::uint32_t>(wall_clock_us() / 1'000'000 - 1'767'225'600);
}

std::string boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  file >> id;
  return id;
}

Result<std::string> checked_name(const std::string& name) {
  const bool good =
      !name.empty() && name.size() <= 64 &&
      name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789.-") == std::string::npos;
  if (good) return name;
  return fail(Errc::kInvalidArgument,
              "node.name \"" + name + "\": expected 1 to 64 of a-z, 0-9, dot and dash");
}

Result<std::map<std::string, std::string>> read_labels(const Settings& settings) {
  std::map<std::string, std::string> labels;
  for (const auto& item : settings.items("node.labels")) {
    const auto equals = item.find('=');
    if (equals == 0 || equals == std::string::npos)
      return fail(Errc::kInvalidArgument, "node.labels \"" + item + "\": expected name=value");
    labels[item.substr(0, equals)] = item.substr(equals + 1);
  }
  labels.try_emplace("isa", std::string(isa_name(active_isa())));
  return labels;
}

}  // namespace

Result<std::unique_ptr<Node>> Node::open(const Settings& settings, const std::string& role,
                                         std::string model_hash) {
  std::unique_ptr<Node> node(new Node);
  const auto& named = settings.text("node.name");
  MOESAIC_TRY(const auto name, checked_name(named.empty() ? role + "-0" : named));
  node->identity_ = {role, name, incarnation_now(), std::move(model_hash), kVersion, boot_id()};
  MOESAIC_TRY(node->exporter_,
              TraceExporter::start(trace_config(settings, "moesaic-" + role, name)));
  node->plaintext_ = settings.yes("transport.plaintext");
  if (const auto& folder = settings.text("transport.keys"); !folder.empty()) {
    MOESAIC_TRY(auto keys, transport::KeyRing::load(folder, role, name));
    node->keys_ = std::make_shared<const transport::KeyRing>(std::move(keys));
  }
  auto& self = node->self_;
  self.role = role;
  self.name = name;
  self.incarnation = node->identity_.incarnation;
  self.host = node->identity_.host;
  if (node->keys_) self.public_key = node->keys_->own().public_key;
  MOESAIC_TRY(self.labels, read_labels(settings));
  self.model_hash = node->identity_.model_hash;
  self.version = kVersion;
  self.wire_version = transport::kWireVersion;
  return node;
}

Node::~Node() {
  ticker_.reset();
  link_.reset();
  if (admin_) admin_->stop();
}

Result<std::unique_ptr<transport::Endpoint>> Node::endpoint(std::vector<std::string> accepted_roles,
                                                            std::uint16_t credits) {
  transport::ZmqOptions options;
  options.keys = keys_;
  options.plaintext = plaintext_;
  MOESAIC_TRY(auto carrier, transport::make_carrier(std::move(options)));
  transport::EndpointConfig config;
  config.self = identity_;
  config.accepted_roles = std::move(accepted_roles);
  config.credits = credits;
  return std::make_unique<transport::Endpoint>(std::move(config), std::move(carrier));
}

Result<void> Node::listen(transport::Endpoint& endpoint, const std::vector<std::string>& addresses,
                          bool announced) {
  if (addresses.empty())
    return fail(Errc::kInvalidArgument, "transport.listen names no address to listen on");
  for (const auto& text : addresses) {
    MOESAIC_TRY(const auto address, transport::parse_address(text));
    MOESAIC_TRY(const auto bound, endpoint.listen(address));
    if (announced) self_.addresses.push_back(to_string(bound));
  }
  return {};
}

Result<void> Node::join(const Settings& settings, NodeMember member) {
  member_ = std::move(member);
  self_.capacity_bytes = member_.capacity_bytes;
  joined_ = true;
  if (!admin_) MOESAIC_CHECK(announce(settings, member_.add_routes));
  MOESAIC_CHECK(connect_routers(settings));
  ticker_ = std::make_unique<Ticker>(kTick, [this] { tick(); });
  return {};
}

Readiness Node::readiness() const {
  const auto reason = draining_  ? std::optional<std::string>("draining")
                      : !joined_ ? std::optional<std::string>("loading")
                                 : member_.not_ready();
  boost::json::object detail{{"role", identity_.role}, {"name", identity_.name}};
  if (reason) detail["reason"] = *reason;
  if (const auto loading = load_state_.json(); !loading.empty())
    detail["loading"] = boost::json::parse(loading);
  return Readiness{!reason, boost::json::serialize(detail)};
}

Result<void> Node::announce(const Settings& settings,
                            const std::function<void(HttpRouter&)>& add_routes) {
  AdminParts parts;
  parts.ready = [this] { return readiness(); };
  parts.add_routes = [this, &add_routes](HttpRouter& router) {
    router.add("GET", "/view", [this](HttpRequest, std::shared_ptr<Responder> responder) {
      const auto seen = view();
      HttpAnswer answer;
      answer.headers.add("Content-Type", "application/json");
      answer.body = seen ? cluster::to_json(*seen) : "null";
      responder->send(std::move(answer));
    });
    if (add_routes) add_routes(router);
  };
  parts.allow_any_host = settings.yes("admin.insecure_no_auth");
  MOESAIC_TRY(admin_, AdminServer::start(settings.text("admin.host"),
                                         static_cast<std::uint16_t>(settings.integer("admin.port")),
                                         std::move(parts)));
  self_.admin = admin_->url();
  return {};
}

Result<void> Node::connect_routers(const Settings& settings) {
  std::vector<transport::Address> routers;
  for (const auto& item : settings.items("router.endpoints")) {
    const auto equals = item.find('=');
    if (equals == std::string::npos)
      return fail(Errc::kInvalidArgument,
                  "router.endpoints \"" + item + "\": expected name=address");
    const auto name = item.substr(0, equals);
    MOESAIC_TRY(auto address,
                transport::parse_address(item.substr(equals + 1),
                                         keys_ ? keys_->key_of("router", name) : std::string()));
    routers.push_back(std::move(address));
  }
  MOESAIC_TRY(auto endpoint, this->endpoint({}));
  for (const auto& address : routers) {
    if (const auto peer = endpoint->connect(address); !peer)
      return tl::make_unexpected(peer.error());
  }

  cluster::Membership::Options options;
  options.wall_clock_us = wall_clock_us;
  cluster::Membership::Callbacks callbacks;
  callbacks.send = [this](transport::PeerId peer, transport::Frame frame) {
    // A router that cannot be told now is told again by the next heartbeat.
    static_cast<void>(endpoint_->send(peer, std::move(frame)));
  };
  callbacks.on_view = [this](const std::shared_ptr<const cluster::View>& view) {
    {
      const std::lock_guard lock(mutex_);
      view_ = view;
    }
    if (identity_.role == "router") {
      view_metrics_.publish(*view);
    } else {
      cluster::publish_generation(view->placement);
    }
    if (member_.on_view) member_.on_view(view);
  };
  callbacks.on_prepare = [this](const cluster::PlacementTable& table) {
    if (member_.on_prepare) member_.on_prepare(table);
  };
  callbacks.on_release = [this](const cluster::PlacementTable& table) {
    if (member_.on_release) member_.on_release(table);
  };
  callbacks.on_drain = [this] {
    draining_ = true;
    if (member_.on_drain) member_.on_drain();
  };
  callbacks.on_refused = [](const Error& error) { log(LogLevel::kError, error.what); };
  membership_ = std::make_unique<cluster::Membership>(self_, options, std::move(callbacks));
  link_ = std::make_unique<transport::Link>(
      std::move(endpoint), [this](transport::Endpoint& used, const transport::Event& event) {
        endpoint_ = &used;
        membership_->on_event(event, Clock::now());
      });
  return {};
}

void Node::tick() {
  auto load = member_.load ? member_.load() : cluster::Load{};
  const auto reason = member_.not_ready();
  load.ready = !reason && !draining_;
  load.draining = draining_;
  load.detail = reason.value_or("");
  const auto adopted = member_.adopted ? member_.adopted() : 0;
  // A link that takes no more tasks is behind; the next tick says the same.
  static_cast<void>(link_->post([this, load = std::move(load), adopted](transport::Endpoint& used) {
    endpoint_ = &used;
    membership_->set_load(load);
    if (adopted > 0) membership_->adopted(adopted);
    membership_->tick(Clock::now());
  }));
}

void Node::prepared(cluster::Prepared message) {
  static_cast<void>(
      link_->post([this, message = std::move(message)](transport::Endpoint& used) mutable {
        endpoint_ = &used;
        membership_->prepared(std::move(message));
      }));
}

std::shared_ptr<const cluster::View> Node::view() const {
  const std::lock_guard lock(mutex_);
  return view_;
}

std::string Node::describe() const {
  std::string text = "member        " + identity_.role + "/" + identity_.name + "\n";
  for (const auto& address : self_.addresses) text += "data plane    " + address + "\n";
  return text + "admin         " + self_.admin + "\n";
}

}  // namespace moesaic
