#include "actors/supervisor/program.hpp"
#include "common/config/keys.hpp"
#include "services/router/router_process.hpp"

int main(int argc, char** argv) {
  using namespace moesaic;
  return service_main(
      argc, argv, "moesaic-router",
      "Moesaic router: who is here, where the experts are, and the way to them",
      select_keys(
          {"node", "admin", "transport", "router.endpoints", "router.listen", "router.shards",
           "router.dispatch_threads", "placement", "registry", "model.dir", "model.compute",
           "engine.threads", "engine.numerics", "limits.drain_seconds", "trace", "log"},
          {{"admin.port", "8082"}, {"transport.listen", "tcp://127.0.0.1:7401"}}),
      RouterProcess::start);
}
