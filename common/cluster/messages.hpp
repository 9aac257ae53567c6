#pragma once

#include "common/cluster/view.hpp"

namespace moesaic::cluster {

/// The answer to kRegister (kLease) and to each kHeartbeat.
struct Lease {
  std::uint64_t term = 0;
  bool leader = false;         ///< this router leads; views come from it
  std::uint32_t lease_ms = 0;  ///< without a heartbeat for so long the member is dropped
};
template <class Codec>
void fields(Codec& codec, Lease& l) {
  codec(l.term);
  codec(l.leader);
  codec(l.lease_ms);
}

/// To a shard: hold the union of what it holds and its part of this table (kPrepare).
struct Prepare {
  PlacementTable placement;
};
template <class Codec>
void fields(Codec& codec, Prepare& p) {
  codec(p.placement);
}

/// From a shard: the layers of that epoch's placement that are loaded by now (kPrepared); sent
/// again with each further layer.
struct Prepared {
  std::uint32_t epoch = 0;
  std::vector<std::uint32_t> layers;
  std::string error;  ///< not empty: it cannot be done, and why
};
template <class Codec>
void fields(Codec& codec, Prepared& p) {
  codec(p.epoch);
  codec(p.layers);
  codec(p.error);
}

/// From a dispatcher: no question of an older view is under way any more (kAdopted).
struct Adopted {
  std::uint64_t version = 0;  ///< of the view
};
template <class Codec>
void fields(Codec& codec, Adopted& a) {
  codec(a.version);
}

/// To a shard: experts that this table does not give it may go (kRelease).
struct Release {
  PlacementTable placement;
};
template <class Codec>
void fields(Codec& codec, Release& r) {
  codec(r.placement);
}

/// From a tool: serve by this placement file from now on (kPlace).
struct Place {
  std::string yaml;
};
template <class Codec>
void fields(Codec& codec, Place& p) {
  codec(p.yaml);
}

/// From a tool to the router: drain this member; answered by kView or kFailure. From the router to
/// the member itself (kDrain).
struct Drain {
  std::string role;
  std::string name;
};
template <class Codec>
void fields(Codec& codec, Drain& d) {
  codec(d.role);
  codec(d.name);
}

}  // namespace moesaic::cluster
