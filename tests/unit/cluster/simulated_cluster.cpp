#include "tests/unit/cluster/simulated_cluster.hpp"

#include <algorithm>

namespace moesaic::cluster::test {

using std::chrono::milliseconds;
using transport::Event;
using transport::FrameType;

namespace {

constexpr milliseconds kStep{10};
constexpr transport::PeerId kRouter = 1;  // as members know it

std::set<SimulatedCluster::Expert> part_of(const PlacementTable& table, const std::string& shard) {
  std::set<SimulatedCluster::Expert> part;
  const auto at = std::find(table.shards.begin(), table.shards.end(), shard);
  if (at == table.shards.end()) return part;
  const auto bit = at - table.shards.begin();
  for (std::size_t layer = 0; layer < table.layers; ++layer)
    for (std::size_t pool = 0; pool < kPools; ++pool)
      for (std::size_t e = 0; e < table.experts[pool]; ++e)
        if ((table.at(layer, pool, e) >> bit & 1) != 0) part.emplace(layer, pool, e);
  return part;
}

}  // namespace

ExpertGeometry small_geometry() {
  ExpertGeometry geometry;
  geometry.layer_is_moe = {false, true, true, true};
  geometry.experts = {8, 4};
  geometry.expert_bytes = {1000, 500};
  geometry.hidden = 16;
  geometry.top_k = 2;
  geometry.row_bytes = 32;
  geometry.node_bytes = 32;
  return geometry;
}

SimulatedCluster::SimulatedCluster(ControlConfig given, std::uint64_t seed)
    : config(std::move(given)), random_(seed) {
  config.name = "router-0";
  config.geometry = small_geometry();
  config.model_hash = "m1";
  config.version = "0.4.0";
  start_router();
}

void SimulatedCluster::start_router() {
  auto made = ControlPlane::make(config);
  if (!made) throw std::runtime_error(made.error().what);
  control = std::make_unique<ControlPlane>(std::move(*made));
  RegistryEvent event;
  event.kind = RegistryEvent::Kind::kLeading;
  event.term = ++term_;
  control->on_registry(event, now);
  for (auto& [name, process] : processes_)
    if (process.alive) connect(process);
  tool_ = 0;
  drain_control();
}

void SimulatedCluster::kill_router() {
  control.reset();
  for (auto& [name, process] : processes_) {
    Event down;
    down.kind = Event::Kind::kDown;
    down.peer = kRouter;
    if (process.alive) process.membership->on_event(down, now);
  }
  wire_.clear();
}

void SimulatedCluster::start(const std::string& role, const std::string& name,
                             std::map<std::string, std::string> labels, std::uint64_t capacity) {
  auto& process = processes_[name];
  const auto life = process.member.incarnation + 1;
  process = {};
  auto& member = process.member;
  member.role = role;
  member.name = name;
  member.incarnation = life;
  member.labels = std::move(labels);
  member.capacity_bytes = capacity;
  member.model_hash = "m1";
  member.version = "0.4.1";
  member.wire_version = 1;
  process.alive = true;
  Membership::Callbacks callbacks;
  callbacks.send = [this, &process](transport::PeerId, transport::Frame frame) {
    send(process.peer, "", std::move(frame));
  };
  callbacks.on_view = [this, &process](const std::shared_ptr<const View>& told) {
    process.taking_up.emplace_back(now + milliseconds(30), told);
  };
  callbacks.on_prepare = [this, &process](const PlacementTable& table) {
    if (process.oldest == 0) process.oldest = table.epoch;
    process.loading = table;
    process.next_layer = 0;
    process.loaded.clear();
    process.layer_done = now + load_time;
  };
  callbacks.on_release = [&process](const PlacementTable& table) {
    process.loading.reset();
    process.oldest = table.epoch;
    process.experts = part_of(table, process.member.name);
  };
  process.membership = std::make_unique<Membership>(member, Membership::Options{}, callbacks);
  Load load;
  load.ready = true;
  process.membership->set_load(load);
  if (control) connect(process);
}

void SimulatedCluster::connect(Process& process) {
  process.peer = next_peer_++;
  Event up;
  up.kind = Event::Kind::kUp;
  up.peer = process.peer;
  up.identity.role = process.member.role;
  up.identity.name = process.member.name;
  control->on_event(up, now);
  up.peer = kRouter;
  process.membership->on_event(up, now);
}

void SimulatedCluster::kill(const std::string& name) {
  auto& process = processes_.at(name);
  process.alive = false;
  std::erase_if(wire_, [&](const Message& m) { return m.peer == process.peer; });
  if (!control) return;
  Event down;
  down.kind = Event::Kind::kDown;
  down.peer = process.peer;
  control->on_event(down, now);
  drain_control();
}

void SimulatedCluster::cut(const std::string& name) { processes_.at(name).cut = true; }
void SimulatedCluster::mend(const std::string& name) { processes_.at(name).cut = false; }

void SimulatedCluster::ask(transport::Frame frame) {
  if (tool_ == 0) {
    tool_ = next_peer_++;
    Event up;
    up.kind = Event::Kind::kUp;
    up.peer = tool_;
    up.identity.role = "tool";
    up.identity.name = "admin";
    control->on_event(up, now);
  }
  Event event;
  event.kind = Event::Kind::kFrame;
  event.peer = tool_;
  event.frame = std::move(frame);
  control->on_event(event, now);
  drain_control();
}

void SimulatedCluster::send(transport::PeerId peer, const std::string& to, transport::Frame frame) {
  if (std::uniform_real_distribution<>(0, 1)(random_) < loss) return;
  auto at = now + milliseconds(std::uniform_int_distribution<>(1, 20)(random_));
  for (const auto& message : wire_)  // frames of a connection come in order
    if (message.peer == peer && message.to == to) at = std::max(at, message.at);
  wire_.push_back({at, peer, to, std::move(frame)});
}

void SimulatedCluster::drain_control() {
  if (!control) return;
  while (true) {
    auto out = control->take_output();
    for (auto& line : out.log) log.push_back(line.text);
    for (auto& message : out.messages) {
      if (message.frame.type == FrameType::kView && on_pushed && message.to != tool_) {
        const auto told = transport::read_message<View>(message.frame);
        on_pushed(*told);
      }
      if (message.to == tool_) {
        answers.push_back(std::move(message.frame));
        continue;
      }
      for (auto& [name, process] : processes_)
        if (process.alive && process.peer == message.to)
          send(message.to, name, std::move(message.frame));
    }
    if (!out.store) return;
    stored_epoch = out.store->epoch;
    RegistryEvent event;
    event.kind = RegistryEvent::Kind::kPlacement;
    event.epoch = out.store->epoch;
    event.yaml = out.store->yaml;
    control->on_registry(event, now);
  }
}

void SimulatedCluster::work(const std::string& name, Process& process) {
  while (process.loading && now >= process.layer_done) {
    Prepared done;
    done.epoch = process.loading->epoch;
    if (const auto error = load_error.find(name); error != load_error.end()) {
      done.error = error->second;
      process.loading.reset();
      process.membership->prepared(done);
      return;
    }
    for (const auto& expert : part_of(*process.loading, name))
      if (std::get<0>(expert) == process.next_layer) process.experts.insert(expert);
    process.loaded.push_back(process.next_layer++);
    process.layer_done += load_time;
    done.layers = process.loaded;
    if (process.next_layer == process.loading->layers) process.loading.reset();
    process.membership->prepared(done);
  }
  while (!process.taking_up.empty() && now >= process.taking_up.front().first) {
    process.used = process.taking_up.front().second;
    process.taking_up.pop_front();
    process.membership->adopted(process.used->version);
  }
}

void SimulatedCluster::step() {
  now += kStep;
  std::stable_sort(wire_.begin(), wire_.end(),
                   [](const Message& a, const Message& b) { return a.at < b.at; });
  while (!wire_.empty() && wire_.front().at <= now) {
    auto message = std::move(wire_.front());
    wire_.pop_front();
    Event event;
    event.kind = Event::Kind::kFrame;
    event.frame = std::move(message.frame);
    for (auto& [name, process] : processes_) {
      if (process.peer != message.peer || process.cut) continue;
      if (message.to.empty()) {
        event.peer = message.peer;
        if (control) control->on_event(event, now);
      } else if (process.alive) {
        event.peer = kRouter;
        process.membership->on_event(event, now);
      }
      break;
    }
    drain_control();
  }
  for (auto& [name, process] : processes_) {
    if (!process.alive) continue;
    process.membership->tick(now);
    work(name, process);
  }
  if (control) control->tick(now);
  drain_control();
}

void SimulatedCluster::run(milliseconds time) {
  const auto end = now + time;
  while (now < end) step();
}

bool SimulatedCluster::run_until(const std::function<bool()>& test, milliseconds limit) {
  const auto end = now + limit;
  while (!test()) {
    if (now >= end) return false;
    step();
  }
  return true;
}

std::vector<SimulatedCluster::Expert> SimulatedCluster::unserved(
    const std::string& dispatcher) const {
  std::vector<Expert> missing;
  const auto& used = processes_.at(dispatcher).used;
  const auto geometry = small_geometry();
  for (std::size_t layer = 0; layer < geometry.layer_is_moe.size(); ++layer) {
    if (!geometry.layer_is_moe[layer]) continue;
    for (std::size_t pool = 0; pool < kPools; ++pool)
      for (std::size_t e = 0; e < geometry.experts[pool]; ++e) {
        bool served = false;
        for (std::size_t s = 0;
             used && used->placement.epoch > 0 && s < used->placement.shards.size(); ++s) {
          const auto& shard = processes_.at(used->placement.shards[s]);
          served = served || ((used->placement.at(layer, pool, e) >> s & 1) != 0 && shard.alive &&
                              used->placement.epoch >= shard.oldest &&
                              shard.experts.contains({layer, pool, e}));
        }
        if (!served) missing.emplace_back(layer, pool, e);
      }
  }
  return missing;
}

std::set<SimulatedCluster::Expert> SimulatedCluster::held(const std::string& shard) const {
  return processes_.at(shard).experts;
}

bool SimulatedCluster::logged(const std::string& part) const {
  return std::any_of(log.begin(), log.end(),
                     [&](const std::string& line) { return line.find(part) != line.npos; });
}

}  // namespace moesaic::cluster::test
