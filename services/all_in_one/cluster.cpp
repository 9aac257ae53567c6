#include "services/all_in_one/cluster.hpp"

#include "actors/decoder/decoder.hpp"
#include "actors/expert_shard/expert_shard.hpp"
#include "actors/router/control.hpp"
#include "actors/vision_encoder/vision_encoder.hpp"
#include "services/all_in_one/experts.hpp"

namespace moesaic {
Result<std::unique_ptr<Cluster>> Cluster::start(caf::actor_system& system, ClusterParts parts) {
  std::unique_ptr<Cluster> cluster(new Cluster(system));
  const auto& model = parts.model;
  cluster->router_ = system.spawn(router_control,
                                  std::vector<RequiredRole>{{"expert-shard", model.experts.size()},
                                                            {"decoder", 1},
                                                            {"vision-encoder", 1},
                                                            {"gateway", 1}},
                                  std::move(parts.on_change));

  MOESAIC_TRY(auto wiring, wire_experts(model, parts.routed_shards > 0));
  for (std::size_t i = 0; i < model.experts.size(); ++i) {
    ExpertShardParts shard;
    shard.name = "expert-shard-" + std::to_string(i);
    shard.config = model.config;
    shard.compute = model.compute;
    shard.table = model.experts[i];
    shard.pool = model.pool;
    if (!wiring.shards.empty()) shard.service = wiring.shards[i];
    const auto name = shard.name;
    cluster->shards_.push_back(system.spawn(expert_shard, std::move(shard)));
    cluster->join("expert-shard", name, cluster->shards_.back().address());
  }

  // The engine is made here, where a failure can be told, and handed to the actor that owns it.
  // Until that actor lives nobody can submit, so no event comes before `sink` is set.
  struct Sink {
    Engine::OnEvents target;
  };
  const auto sink = std::make_shared<Sink>();
  MOESAIC_TRY(auto engine,
              make_engine(model, parts.engine, std::move(wiring.backend),
                          [sink](TokenEvents events) { sink->target(std::move(events)); }));
  const auto owned = std::make_shared<std::unique_ptr<Engine>>(std::move(engine));
  cluster->decoder_ =
      system.spawn(moesaic::decoder, EngineFactory([sink, owned](Engine::OnEvents on_events) {
                     sink->target = std::move(on_events);
                     return std::move(*owned);
                   }));
  cluster->join("decoder", "decoder-0", cluster->decoder_.address());

  VisualPipelineParts vision{model.config,
                             model.vision,
                             model.vision_compute,
                             model.pool,
                             std::move(parts.preprocess),
                             parts.image_limits,
                             parts.vision_cache_bytes,
                             parts.engine.tracer};
  cluster->vision_ = system.spawn<caf::detached>(vision_encoder, std::move(vision));
  cluster->join("vision-encoder", "vision-encoder-0", cluster->vision_.address());
  return cluster;
}

Cluster::~Cluster() { stop(); }

void Cluster::join(const std::string& role, const std::string& name, const caf::actor_addr& who) {
  caf::anon_send(router_, join_atom::value, std::make_shared<const Member>(Member{role, name}),
                 who);
}

void Cluster::stop() {
  if (!router_) return;
  caf::scoped_actor self(system_);
  const auto end = [&](auto& handle) {
    if (!handle) return;
    self->monitor(handle);
    self->send_exit(handle, caf::exit_reason::user_shutdown);
    self->receive([](const caf::down_msg&) {});
    handle = std::decay_t<decltype(handle)>{};
  };
  end(decoder_);
  end(vision_);
  for (auto& shard : shards_) end(shard);
  end(router_);
}

}  // namespace moesaic
