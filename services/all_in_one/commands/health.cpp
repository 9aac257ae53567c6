#include <cstdio>

#include "common/http/client.hpp"
#include "services/all_in_one/commands/commands.hpp"

namespace moesaic {
namespace {

Result<void> ask(const std::string& url, unsigned timeout_s) {
  HttpClient client;
  MOESAIC_TRY(const auto answer,
              client.request("GET", url, {}, {}, std::chrono::seconds(timeout_s)));
  if (answer.status == 200) return {};
  return fail(Errc::kUnavailable, url + ": status " + std::to_string(answer.status) + ": " +
                                      answer.body.substr(0, 500));
}

}  // namespace

void add_health(CLI::App& app, int& status) {
  struct Options {
    std::string url = "http://127.0.0.1:8080/ready";
    unsigned timeout_s = 3;
  };
  auto* command = app.add_subcommand(
      "health", "ask a service whether it can serve; exit status 0 if it can (for probes)");
  const auto options = std::make_shared<Options>();
  command->add_option("--url", options->url, "what to ask")->capture_default_str();
  command->add_option("--timeout", options->timeout_s, "seconds")->capture_default_str();
  command->callback([options, &status] {
    if (const auto healthy = ask(options->url, options->timeout_s); !healthy)
      status = report(healthy.error());
  });
}

}  // namespace moesaic
