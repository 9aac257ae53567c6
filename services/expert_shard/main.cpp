#include "actors/supervisor/program.hpp"
#include "common/config/keys.hpp"
#include "services/expert_shard/expert_shard_service.hpp"

int main(int argc, char** argv) {
  using namespace moesaic;
  return service_main(
      argc, argv, "moesaic-expert-shard", "Moesaic expert shard: the experts a placement gives it",
      select_keys(
          {"node", "admin", "transport", "router.endpoints", "model.dir", "model.compute",
           "engine.threads", "engine.numerics", "shard", "limits.drain_seconds", "trace", "log"},
          {{"admin.port", "8083"}, {"transport.listen", "tcp://127.0.0.1:7410"}}),
      ExpertShardProcess::start);
}
