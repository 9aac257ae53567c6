#pragma once

#include <string>

#include "common/cluster/member_list.hpp"
#include "common/cluster/placement_switch.hpp"
#include "common/cluster/view.hpp"

namespace moesaic::cluster {

/// What a view is made of; references are read within the call.
struct ViewParts {
  const MemberList& members;
  const PlacementSwitch& placement;
  const ExpertGeometry& geometry;
  bool vision = false;             ///< serving needs a vision encoder
  const std::string& waiting_for;  ///< why there is no placement yet
};

/// Members, placement, and whether serving can work: every expert has an owner that is alive and
/// has loaded it, and there are a decoder and, if needed, a vision encoder that are alive and say
/// they are ready. A shard counts as ready only if it has loaded all that the table in force gives
/// it. Term, version and leader are the caller's to fill in.
View build_view(const ViewParts& parts);

}  // namespace moesaic::cluster
