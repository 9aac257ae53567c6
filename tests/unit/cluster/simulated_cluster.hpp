#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "common/cluster/control_plane.hpp"
#include "common/cluster/membership.hpp"

namespace moesaic::cluster::test {

/// A model of four layers, the first dense, 8 text and 4 vision experts of 1000 and 500 bytes.
ExpertGeometry small_geometry();

/// A router and members in simulated time: messages take a while, may be lost, connections break.
/// Shards load a layer at a time, dispatchers take up a view a while after it came.
class SimulatedCluster {
 public:
  using Clock = std::chrono::steady_clock;
  using Expert = std::tuple<std::size_t, std::size_t, std::size_t>;  ///< layer, pool, expert

  explicit SimulatedCluster(ControlConfig config = {}, std::uint64_t seed = 1);

  /// Starts a process; again after `kill` for another life.
  void start(const std::string& role, const std::string& name,
             std::map<std::string, std::string> labels = {}, std::uint64_t capacity = 0);
  void kill(const std::string& name);  ///< the connection closes at once
  void cut(const std::string& name);   ///< nothing arrives any more, nobody is told
  void mend(const std::string& name);
  void kill_router();
  void start_router();
  /// A tool's question; the answer comes into `answers`.
  void ask(transport::Frame frame);

  void run(std::chrono::milliseconds time);
  /// Runs until it holds; false after `limit`.
  bool run_until(const std::function<bool()>& test,
                 std::chrono::milliseconds limit = std::chrono::seconds(30));

  const View& view() const { return *control->view(); }
  /// Experts that nobody can compute for this member by the view it works with; empty: all can be.
  std::vector<Expert> unserved(const std::string& dispatcher) const;
  std::set<Expert> held(const std::string& shard) const;
  bool logged(const std::string& part) const;

  double loss = 0;                                ///< of each message
  std::chrono::milliseconds load_time{20};        ///< of a layer
  std::map<std::string, std::string> load_error;  ///< by shard: it cannot load, and why
  std::function<void(const View&)> on_pushed;     ///< each view that a router sends
  ControlConfig config;
  std::unique_ptr<ControlPlane> control;
  std::vector<transport::Frame> answers;  ///< to the tool
  std::vector<std::string> log;
  std::uint32_t stored_epoch = 0;
  Clock::time_point now{std::chrono::hours(1)};

 private:
  struct Process {
    Member member;
    std::unique_ptr<Membership> membership;
    transport::PeerId peer = 0;  ///< as the router knows the connection
    bool alive = false;
    bool cut = false;
    std::set<Expert> experts;
    std::uint32_t oldest = 0;  ///< a shard: questions of older epochs are stale
    // A shard: what it is loading, and when the next layer is there.
    std::optional<PlacementTable> loading;
    std::uint32_t next_layer = 0;
    Clock::time_point layer_done{};
    std::vector<std::uint32_t> loaded;
    // A dispatcher: views on the way into use.
    std::deque<std::pair<Clock::time_point, std::shared_ptr<const View>>> taking_up;
    std::shared_ptr<const View> used;
  };
  struct Message {
    Clock::time_point at;
    transport::PeerId peer = 0;
    std::string to;  ///< empty: the router
    transport::Frame frame;
  };

  void connect(Process& process);
  void step();
  void work(const std::string& name, Process& process);
  void drain_control();
  void send(transport::PeerId peer, const std::string& to, transport::Frame frame);

  std::mt19937_64 random_;
  std::map<std::string, Process> processes_;
  std::deque<Message> wire_;
  transport::PeerId next_peer_ = 1;
  transport::PeerId tool_ = 0;
  std::uint64_t term_ = 0;
};

}  // namespace moesaic::cluster::test
