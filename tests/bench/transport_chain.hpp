#pragma once

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace moesaic::bench {

/// What a wire costs a token: kLayers times a question of about kQuestion bytes to each of kPeers
/// processes at once, and an answer of about kAnswer bytes from each.
inline constexpr int kLayers = 27;
inline constexpr int kPeers = 2;
inline constexpr std::size_t kQuestion = 2600;
inline constexpr std::size_t kAnswer = 5100;
inline constexpr int kTokensPerTurn = 20;

class Chain {
 public:
  virtual ~Chain() = default;
  virtual void layer() = 0;
};

[[noreturn]] inline void stop(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::exit(1);
}

/// Keeps this process on one CPU: left to the scheduler, where the processes of a chain happen to
/// sit decides more than the wire does.
inline void stay_on(unsigned cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu % std::max(1U, std::thread::hardware_concurrency()), &set);
  static_cast<void>(::sched_setaffinity(0, sizeof set, &set));
}

/// Runs `body` in a child process, which ends with this one; the line it writes to the descriptor
/// it gets is returned. Call before the first thread starts.
inline std::string start_child(const std::function<void(int)>& body) {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) stop("pipe failed");
  static unsigned children = 0;
  stay_on(0);
  const auto cpu = 1 + children++ % kPeers;
  if (::fork() == 0) {
    stay_on(cpu);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::close(ends[0]);
    body(ends[1]);
    std::_Exit(0);
  }
  ::close(ends[1]);
  std::string text;
  for (char c = 0; ::read(ends[0], &c, 1) == 1 && c != '\n';) text += c;
  ::close(ends[0]);
  return text;
}

inline void tell(int fd, const std::string& text) {
  if (::write(fd, (text + '\n').c_str(), text.size() + 1) < 0) std::_Exit(1);
}

struct Wire {
  const char* name;
  Chain* chain;
  std::vector<double> us{};  ///< per token
};

inline void measure(Wire& wire, int tokens) {
  using Clock = std::chrono::steady_clock;
  for (int token = 0; token < tokens; ++token) {
    const auto start = Clock::now();
    for (int layer = 0; layer < kLayers; ++layer) wire.chain->layer();
    wire.us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
}

/// All wires in turns, so that what disturbs the machine disturbs all of them; prints medians
/// beside that of the first. @return the medians' ratios to the first
inline std::vector<double> compare(std::vector<Wire> wires, int tokens) {
  for (auto& wire : wires) {
    measure(wire, kTokensPerTurn);
    wire.us.clear();
  }
  for (int done = 0; done < tokens; done += kTokensPerTurn)
    for (auto& wire : wires) measure(wire, kTokensPerTurn);
  std::printf("%d layers, %d peers, %zu B out, %zu B back, %d tokens\n", kLayers, kPeers, kQuestion,
              kAnswer, tokens);
  std::vector<double> ratios;
  double base = 0;
  for (auto& wire : wires) {
    std::sort(wire.us.begin(), wire.us.end());
    const auto median = wire.us[wire.us.size() / 2];
    if (base == 0) base = median;
    ratios.push_back(median / base);
    std::printf("%-24s median %7.0f us/token  p99 %7.0f  %5.2f x %s\n", wire.name, median,
                wire.us[wire.us.size() * 99 / 100], median / base, wires.front().name);
  }
  return ratios;
}

}  // namespace moesaic::bench
