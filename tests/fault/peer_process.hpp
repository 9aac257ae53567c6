#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace moesaic::test {

/// A running transport_peer (see there); killed at the end.
class PeerProcess {
 public:
  explicit PeerProcess(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), std::string(MOESAIC_BIN_DIR) + "/transport_peer");
    std::vector<char*> argv;
    for (auto& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    int pipe_ends[2];
    if (::pipe2(pipe_ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe failed");
    out_ = pipe_ends[0];
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], 1);
    const int failed = ::posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), ::environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(pipe_ends[1]);
    if (failed != 0) throw std::runtime_error("cannot start " + arguments[0]);
  }
  ~PeerProcess() {
    end();
    ::close(out_);
  }
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;

  pid_t pid() const { return pid_; }
  void signal(int number) const { ::kill(pid_, number); }
  /// Kills it and waits until it has gone.
  void end() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

  /// Its next line of output; empty if there is none in time.
  std::string line(std::chrono::milliseconds patience = std::chrono::seconds(5)) {
    std::string text;
    for (pollfd asked{out_, POLLIN, 0};
         ::poll(&asked, 1, static_cast<int>(patience.count())) > 0;) {
      char c = 0;
      if (::read(out_, &c, 1) != 1 || c == '\n') break;
      text += c;
    }
    return text;
  }

  std::size_t resident_bytes() const {
    std::ifstream file("/proc/" + std::to_string(pid_) + "/statm");
    std::size_t total = 0, resident = 0;
    file >> total >> resident;
    return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  }
  std::size_t descriptors() const {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry :
         std::filesystem::directory_iterator("/proc/" + std::to_string(pid_) + "/fd"))
      ++count;
    return count;
  }

 private:
  pid_t pid_ = -1;
  int out_ = -1;
};

}  // namespace moesaic::test
