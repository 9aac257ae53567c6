#include "actors/supervisor/program.hpp"
#include "common/config/keys.hpp"
#include "services/decoder/decoder_service.hpp"

int main(int argc, char** argv) {
  using namespace moesaic;
  return service_main(
      argc, argv, "moesaic-decoder",
      "Moesaic decoder: prompts in, tokens out, with experts on other machines",
      select_keys({"node", "admin", "transport", "router.endpoints", "router.dispatch", "model.dir",
                   "model.compute", "engine.threads", "engine.numerics", "engine.max_context",
                   "engine.max_running", "engine.max_waiting", "engine.step_rows",
                   "engine.prefill_chunk", "kv", "limits.drain_seconds", "trace", "log"},
                  {{"admin.port", "8084"}, {"transport.listen", "tcp://127.0.0.1:7430"}}),
      DecoderService::start);
}
