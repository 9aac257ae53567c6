#include "actors/supervisor/program.hpp"
#include "common/config/keys.hpp"
#include "services/vision_encoder/vision_encoder_service.hpp"

int main(int argc, char** argv) {
  using namespace moesaic;
  return service_main(
      argc, argv, "moesaic-vision-encoder",
      "Moesaic vision encoder: images and videos in, embeddings out",
      select_keys({"node", "admin", "transport", "router.endpoints", "model.dir", "model.compute",
                   "engine.threads", "engine.numerics", "vision", "limits.image_bytes",
                   "limits.image_pixels", "limits.drain_seconds", "trace", "log"},
                  {{"admin.port", "8081"}, {"transport.listen", "tcp://127.0.0.1:7450"}}),
      VisionEncoderService::start);
}
