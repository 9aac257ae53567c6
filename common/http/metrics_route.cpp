#include "common/http/metrics_route.hpp"

#include <string>
#include <utility>

#include "common/metrics/metrics.hpp"

namespace moesaic {

void add_metrics_route(HttpRouter& router, std::function<bool()> ready) {
  router.add(
      "GET", "/metrics",
      [ready = std::move(ready), told = metrics::gauge("moesaic_control_ready")](
          const HttpRequest&, const std::shared_ptr<Responder>& responder) mutable {
        told.set(ready() ? 1 : 0);
        responder->send(
            {200, {{"Content-Type", std::string(metrics::kContentType)}}, metrics::expose()});
      });
}

}  // namespace moesaic
