#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/cluster/placement_table.hpp"
#include "common/transport/bytes.hpp"

namespace moesaic::cluster {

/// What a service tells of itself when it registers (kRegister).
struct Member {
  std::string role;  ///< as transport::Identity
  std::string name;
  std::uint32_t incarnation = 0;
  std::string host;  ///< boot id
  std::vector<std::string>
      addresses;           ///< where its data plane listens, best first; see parse_address
  std::string public_key;  ///< CURVE; empty: none
  std::string admin;       ///< http://host:port of /metrics, /ready
  std::map<std::string, std::string> labels;  ///< node, tier, isa, gpu, memory_gib, ...
  std::uint64_t capacity_bytes = 0;           ///< of a shard: for experts
  std::string model_hash;
  std::string version;
  std::uint16_t wire_version = 0;
  std::int64_t clock_us = 0;  ///< wall clock when sent, microseconds since 1970
};

template <class Codec>
void fields(Codec& codec, Member& m) {
  codec(m.role);
  codec(m.name);
  codec(m.incarnation);
  codec(m.host);
  codec(m.addresses);
  codec(m.public_key);
  codec(m.admin);
  codec(m.labels);
  codec(m.capacity_bytes);
  codec(m.model_hash);
  codec(m.version);
  codec(m.wire_version);
  codec(m.clock_us);
}

/// What a member tells with each heartbeat (kHeartbeat).
struct Load {
  bool ready = false;  ///< could serve now, as far as it knows
  bool draining = false;
  std::uint32_t running = 0;  ///< requests, or batches
  std::uint32_t waiting = 0;
  std::uint64_t kv_blocks_free = 0;
  std::uint64_t kv_blocks_total = 0;
  std::uint64_t rows = 0;            ///< expert rows computed since start
  std::uint64_t resident_bytes = 0;  ///< weights held
  std::uint32_t epoch = 0;           ///< newest placement it works by
  std::string detail;                ///< why not ready
};

template <class Codec>
void fields(Codec& codec, Load& l) {
  codec(l.ready);
  codec(l.draining);
  codec(l.running);
  codec(l.waiting);
  codec(l.kv_blocks_free);
  codec(l.kv_blocks_total);
  codec(l.rows);
  codec(l.resident_bytes);
  codec(l.epoch);
  codec(l.detail);
}

struct MemberState {
  Member member;
  Load load;
  bool alive = false;  ///< its lease is valid
};

template <class Codec>
void fields(Codec& codec, MemberState& s) {
  codec(s.member);
  codec(s.load);
  codec(s.alive);
}

/// The cluster as the router's control sees it; pushed to every member when it changes (kView).
/// A receiver keeps the last one, also when the router is lost.
struct View {
  std::uint64_t term = 0;     ///< of the leader; views of an older term are ignored
  std::uint64_t version = 0;  ///< grows with each change within the term
  std::string leader;         ///< the router's name
  std::vector<MemberState> members;
  PlacementTable placement;
  bool ready = false;   ///< everything that serving needs is there
  std::string missing;  ///< why not

  const MemberState* find(const std::string& role, const std::string& name) const {
    for (const auto& state : members)
      if (state.member.role == role && state.member.name == name) return &state;
    return nullptr;
  }
};

template <class Codec>
void fields(Codec& codec, View& v) {
  codec(v.term);
  codec(v.version);
  codec(v.leader);
  codec(v.members);
  codec(v.placement);
  codec(v.ready);
  codec(v.missing);
}

}  // namespace moesaic::cluster
