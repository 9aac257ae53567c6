#include "actors/supervisor/program.hpp"
#include "common/config/keys.hpp"
#include "services/gateway/gateway_process.hpp"

int main(int argc, char** argv) {
  using namespace moesaic;
  return service_main(argc, argv, "moesaic-gateway",
                      "Moesaic gateway: the API on HTTP, before a cluster",
                      select_keys({"node", "http", "admin", "transport.keys", "transport.plaintext",
                                   "router.endpoints", "model", "chat", "engine.max_context",
                                   "limits", "metrics", "trace", "log"},
                                  {{"admin.port", "8085"}}),
                      GatewayProcess::start);
}
