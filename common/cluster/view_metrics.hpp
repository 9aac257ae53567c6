#pragma once

#include <set>

#include "common/cluster/view.hpp"
#include "common/metrics/metrics.hpp"

namespace moesaic::cluster {

/// A view as metrics: moesaic_placement_* and moesaic_control_instance_alive, _role. For routers;
/// that every service tells the placement it uses takes `publish_generation` alone. What is no
/// longer in the view leaves the exposition. One thread at a time.
///
/// Experts that the same shards hold are one range, named by what they are: "text 0-31, layers
/// 1-27".
class ViewMetrics {
 public:
  void publish(const View& view);

 private:
  using Series = std::set<metrics::Labels>;
  void publish_members(const View& view);
  void publish_placement(const View& view);

  Series alive_;
  Series roles_;
  Series placed_;
  Series replicas_;
};

/// moesaic_placement_generation.
void publish_generation(const PlacementTable& placement);

}  // namespace moesaic::cluster
