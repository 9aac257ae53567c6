#pragma once

#include <memory>
#include <vector>

#include "actors/contracts/actors.hpp"
#include "actors/vision_encoder/visual_pipeline.hpp"
#include "common/engine/make_engine.hpp"
#include "common/engine/model_loader.hpp"

namespace moesaic {

/// What the actors of one process are made of.
struct ClusterParts {
  LoadedModel model;
  std::size_t routed_shards = 0;  ///< 0: experts are called directly
  EngineSettings engine;
  PreprocessConfig preprocess;
  ImageLimits image_limits;
  std::size_t vision_cache_bytes = 0;
  /// Told the router's view whenever it changes, on an actor thread; must not block.
  std::function<void(const ClusterStatus&)> on_change;
};

/// All actors of one process, wired as they would be across machines. Made and stopped by main.
class Cluster {
 public:
  /// Spawns router control, expert shards, decoder and vision encoder; each joins the router.
  /// @errors those of `make_engine`
  [[nodiscard]] static Result<std::unique_ptr<Cluster>> start(caf::actor_system& system,
                                                              ClusterParts parts);
  /// As `stop`.
  ~Cluster();
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  const DecoderActor& decoder() const { return decoder_; }
  const VisionEncoderActor& vision() const { return vision_; }
  const RouterActor& router() const { return router_; }

  /// Adds a part that was spawned elsewhere (the gateway).
  void join(const std::string& role, const std::string& name, const caf::actor_addr& who);
  /// Ends the actors along the request path: decoder, vision, shards, router. A second call does
  /// nothing.
  void stop();

 private:
  explicit Cluster(caf::actor_system& system) : system_(system) {}

  caf::actor_system& system_;
  RouterActor router_;
  std::vector<ExpertShardActor> shards_;
  DecoderActor decoder_;
  VisionEncoderActor vision_;
};

}  // namespace moesaic
