#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "common/http/client.hpp"
#include "services/all_in_one/commands/commands.hpp"
#include "services/all_in_one/top_screen.hpp"

namespace moesaic {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string admin = "http://127.0.0.1:8082";
  double interval_s = 1;
  bool once = false;
};

/// Asks the admin servers of all members, over connections that stay.
class Watcher {
 public:
  explicit Watcher(std::string admin) : admin_(std::move(admin)) {}

  Result<ClusterMoment> look() {
    ClusterMoment moment;
    MOESAIC_TRY(moment.view, get(admin_ + "/view", std::chrono::seconds(5)));
    if (moment.view == "null")
      return fail(Errc::kUnavailable, admin_ + ": no leading router has told it anything yet");
    MOESAIC_TRY(const auto urls, admin_urls(moment.view));
    moment.seconds = std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
    for (const auto& [member, url] : urls)  // who does not answer has no numbers
      if (const auto page = get(url + "/metrics", std::chrono::milliseconds(500)))
        moment.metrics.emplace(member, parse_metrics(*page));
    return moment;
  }

 private:
  Result<std::string> get(const std::string& url, std::chrono::milliseconds timeout) {
    auto& client = clients_[url];
    if (!client) client = std::make_unique<HttpClient>();
    MOESAIC_TRY(auto answer, client->request("GET", url, "", {}, timeout));
    if (answer.status != 200)
      return fail(Errc::kUnavailable, url + ": status " + std::to_string(answer.status));
    return std::move(answer.body);
  }

  const std::string admin_;
  std::map<std::string, std::unique_ptr<HttpClient>> clients_;
};

Result<void> run(const Options& options) {
  Watcher watcher(options.admin);
  MOESAIC_TRY(auto before, watcher.look());
  while (true) {
    std::this_thread::sleep_for(std::chrono::duration<double>(options.interval_s));
    auto now = watcher.look();
    if (!now && options.once) return tl::make_unexpected(now.error());
    auto screen = now ? top_screen(before, *now) : Result<std::string>(now.error().what + "\n");
    if (!screen) return tl::make_unexpected(screen.error());
    if (!options.once) std::fputs("\x1b[H\x1b[J", stdout);  // home, clear
    std::fputs(screen->c_str(), stdout);
    std::fflush(stdout);
    if (options.once) return {};
    if (now) before = std::move(*now);
  }
}

}  // namespace

void add_top(CLI::App& app, int& status) {
  auto* command = app.add_subcommand(
      "top", "a running cluster: members, experts and wires, refreshed every second");
  const auto options = std::make_shared<Options>();
  command->add_option("--admin", options->admin, "admin server of a router, or of any member")
      ->capture_default_str();
  command->add_option("--interval", options->interval_s, "seconds")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 3600.0));
  command->add_flag("--once", options->once, "print once, after one interval");
  command->callback([options, &status] {
    options->once = options->once || ::isatty(STDOUT_FILENO) == 0;
    if (const auto done = run(*options); !done) status = report(done.error());
  });
}

}  // namespace moesaic
