// What endpoints over shared memory cost a token, against a bare futex ring of the same sizes in
// the same run. Frames are those of an expert shard: four tensors out, two back, made anew each
// time.
//   transport_bench [TOKENS]      medians over TOKENS (400) per wire, in turns
// Fails when shared memory takes more than 1.3 times as long as the bare ring.
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <atomic>
#include <cstring>
#include <filesystem>

#include "common/transport/carriers.hpp"
#include "common/transport/endpoint.hpp"
#include "transport_chain.hpp"

namespace {

using namespace moesaic;
using namespace moesaic::transport;
using bench::kAnswer;
using bench::kPeers;
using bench::kQuestion;
using Clock = std::chrono::steady_clock;

/// A slot per peer, a futex per direction: no checks, no formats, no other peer to listen to.
class BareRing final : public bench::Chain {
 public:
  BareRing() {
    void* memory = ::mmap(nullptr, sizeof(Slot) * kPeers, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) bench::stop("mmap failed");
    slots_ = static_cast<Slot*>(memory);
    for (int i = 0; i < kPeers; ++i) {
      auto& slot = *new (slots_ + i) Slot;
      bench::start_child([&slot](int out) {
        bench::tell(out, "ready");
        std::array<char, kQuestion> question;
        for (int step = 1;; ++step) {
          wait_for(slot.asked, step);
          std::memcpy(question.data(), slot.question, kQuestion);
          std::memset(slot.answer, 1, kAnswer);
          post(slot.answered, step);
        }
      });
    }
  }
  void layer() override {
    ++step_;
    for (int i = 0; i < kPeers; ++i) {
      std::memcpy(slots_[i].question, question_.data(), kQuestion);
      post(slots_[i].asked, step_);
    }
    for (int i = 0; i < kPeers; ++i) {
      wait_for(slots_[i].answered, step_);
      std::memcpy(answer_.data(), slots_[i].answer, kAnswer);
    }
  }

 private:
  struct Slot {
    alignas(64) std::atomic<int> asked{0};
    alignas(64) std::atomic<int> answered{0};
    alignas(64) char question[kQuestion];
    alignas(64) char answer[kAnswer];
  };
  static void futex(std::atomic<int>& word, int operation, int value) {
    ::syscall(SYS_futex, &word, operation, value, nullptr, nullptr, 0);
  }
  static void wait_for(std::atomic<int>& word, int step) {
    for (int seen = 0; (seen = word.load()) != step;) futex(word, FUTEX_WAIT, seen);
  }
  static void post(std::atomic<int>& word, int step) {
    word.store(step);
    futex(word, FUTEX_WAKE, 1);
  }

  Slot* slots_ = nullptr;
  int step_ = 0;
  std::array<char, kQuestion> question_{};
  std::array<char, kAnswer> answer_{};
};

Tensor filled(DType dtype, std::int64_t rows, std::int64_t cols) {
  Tensor tensor(dtype, {rows, cols});
  std::memset(tensor.bytes.data(), 1, tensor.bytes.size());
  return tensor;
}

/// One row of 1280 in bf16 with 6 ids, weights and a mask: 2,616 bytes of tensors.
Frame make_question(std::uint64_t sequence) {
  Frame frame;
  frame.type = FrameType::kExpertRows;
  frame.sequence = sequence;
  frame.layer = 1;
  frame.tensors.reserve(4);
  frame.tensors.push_back(filled(DType::kBf16, 1, 1280));
  frame.tensors.push_back(filled(DType::kI32, 1, 6));
  frame.tensors.push_back(filled(DType::kF32, 1, 6));
  frame.tensors.push_back(filled(DType::kI64, 1, 1));
  return frame;
}

/// Two nodes of that row: 5,136 bytes.
Frame make_answer(std::uint64_t sequence) {
  Frame frame;
  frame.type = FrameType::kExpertNodes;
  frame.sequence = sequence;
  frame.tensors.reserve(2);
  frame.tensors.push_back(filled(DType::kI32, 2, 2));
  frame.tensors.push_back(filled(DType::kBf16, 2, 1280));
  return frame;
}

using MakeCarrier = std::function<Result<std::unique_ptr<Carrier>>()>;

/// Endpoints over any carrier; peers listen at `where`.
class Endpoints final : public bench::Chain {
 public:
  Endpoints(MakeCarrier make, const std::array<std::string, kPeers>& where)
      : make_(std::move(make)) {
    for (const auto& text : where) {
      const auto bound = bench::start_child([&](int out) { serve(out, text); });
      const auto space = bound.find(' ');
      addresses_.push_back(*parse_address(bound.substr(0, space), bound.substr(space + 1)));
    }
  }
  /// Apart from the constructor: all children are forked before the first thread starts.
  void connect() {
    endpoint_ = std::make_unique<Endpoint>(config("decoder", "d"), carrier());
    for (const auto& address : addresses_) peers_.push_back(*endpoint_->connect(address));
    for (int up = 0; up < kPeers;) {
      const auto event = endpoint_->receive(Clock::now() + std::chrono::seconds(5));
      if (!event) bench::stop("a peer does not answer");
      up += event->kind == Event::Kind::kUp ? 1 : 0;
    }
  }
  void layer() override {
    for (const auto peer : peers_)
      if (!endpoint_->send(peer, make_question(++sequence_))) bench::stop("send failed");
    for (int answers = 0; answers < kPeers; ++answers) {
      const auto event = endpoint_->receive(Clock::now() + std::chrono::seconds(5));
      if (!event || event->kind != Event::Kind::kFrame) bench::stop("an answer is missing");
    }
  }

 private:
  std::unique_ptr<Carrier> carrier() const {
    auto made = make_();
    if (!made) bench::stop(made.error().what);
    return std::move(*made);
  }
  static EndpointConfig config(const char* role, const char* name) {
    EndpointConfig config;
    config.self.role = role;
    config.self.name = name;
    config.self.incarnation = 1;
    return config;
  }
  void serve(int out, const std::string& where) const {
    Endpoint endpoint(config("expert-shard", "s"), carrier());
    const auto bound = endpoint.listen(*parse_address(where));
    if (!bound) bench::stop(bound.error().what);
    bench::tell(out, to_string(*bound) + " " + bound->server_key);
    for (;;) {
      const auto event = endpoint.receive(Clock::time_point::max());
      if (event && event->kind == Event::Kind::kFrame)
        static_cast<void>(endpoint.send(event->peer, make_answer(event->frame.sequence)));
    }
  }

  MakeCarrier make_;
  std::vector<Address> addresses_;
  std::unique_ptr<Endpoint> endpoint_;
  std::vector<PeerId> peers_;
  std::uint64_t sequence_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const int tokens = argc > 1 ? std::atoi(argv[1]) : 400;
  std::string folder = (std::filesystem::temp_directory_path() / "moesaic-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) bench::stop("no temporary folder");
  const auto shm = [&folder](const std::string& name) { return "shm://" + folder + "/" + name; };

  BareRing bare;
  Endpoints over_shm([] { return make_shm_carrier(); }, {shm("0"), shm("1")});
  over_shm.connect();
  const auto ratios =
      bench::compare({{"bare futex ring", &bare}, {"endpoints over shm", &over_shm}}, tokens);
  std::filesystem::remove_all(folder);
  return ratios[1] <= 1.3 ? 0 : 1;
}
