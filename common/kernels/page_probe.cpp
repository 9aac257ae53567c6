#include "common/kernels/page_probe.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <vector>

#include "common/base/aligned_buffer.hpp"
#include "common/base/thread_pool.hpp"
#include "common/kernels/attention.hpp"
#include "common/kernels/cpu/attention_impl.hpp"

namespace moesaic {
namespace {

constexpr std::size_t kAreaBytes = std::size_t{192} << 20;
constexpr std::size_t kPasses = 9;
/// Pages of a KV head that one pass reads: 4 MiB with four heads.
constexpr std::size_t kPages = 64;
constexpr AttentionShape kShape{Compute::kInt, 20, 4, 128};

/// Attention of one row over the layers of a cache, laid out as the KV cache of the engine, one
/// after the other, round and round.
class Reader {
 public:
  Reader()
      : pool_(1),
        area_(AlignedBuffer::uninitialized(kAreaBytes)),
        q_(kShape.heads * kShape.head_dim, 1.0F),
        out_(q_.size()) {
    std::memset(area_.data(), 0, area_.size());  // pages of its own; finite values
    const std::size_t layers = area_.size() / (kPages * kShape.kv_heads * kShape.page_bytes());
    for (std::size_t layer = 0; layer < layers; ++layer)
      for (std::size_t h = 0; h < kShape.kv_heads; ++h)
        for (std::size_t b = 0; b < kPages; ++b)
          pages_.push_back(area_.data() +
                           ((b * layers + layer) * kShape.kv_heads + h) * kShape.page_bytes());
  }

  /// @return bytes a second
  double read() {
    AttentionTask task;
    task.q = q_.data();
    task.q_stride = q_.size();
    task.rows = 1;
    task.first_position = kPages * kPageTokens - 1;
    task.pages = pages_.data() + next_;
    task.page_stride = kPages;
    task.out = {Compute::kF32, out_.data(), 1, q_.size(), q_.size()};
    constexpr std::size_t kAll = kPages * kShape.kv_heads;
    next_ = next_ + 2 * kAll <= pages_.size() ? next_ + kAll : 0;
    const auto begun = std::chrono::steady_clock::now();
    attention(kShape, {&task, 1}, pool_);
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begun;
    return static_cast<double>(kAll * kShape.page_bytes()) / spent.count();
  }

 private:
  ThreadPool pool_;
  AlignedBuffer area_;
  std::vector<const std::byte*> pages_;
  std::vector<float> q_, out_;
  std::size_t next_ = 0;
};

double median(std::array<double, kPasses> values) {
  std::nth_element(values.begin(), values.begin() + kPasses / 2, values.end());
  return values[kPasses / 2];
}

}  // namespace

PageStreamChoice tune_page_streams() {
  using attention_detail::PageStreams;
  Reader reader;
  struct Candidate {
    PageStreams streams;
    std::array<double, kPasses> rates;
  };
  std::vector<Candidate> candidates;
  const std::size_t page = kShape.page_bytes();
  for (const PageStreams streams :
       {PageStreams{1, 4096}, PageStreams{1, 8192}, PageStreams{2, page}, PageStreams{3, page},
        PageStreams{4, page}, PageStreams{1, page, true}, PageStreams{2, page, true}})
    candidates.push_back({streams, {}});
  reader.read();
  // Passes take turns: what disturbs the machine for a while disturbs all alike.
  for (std::size_t pass = 0; pass < kPasses; ++pass)
    for (auto& candidate : candidates) {
      attention_detail::set_page_streams(candidate.streams);
      candidate.rates[pass] = reader.read();
    }
  const auto best = std::max_element(
      candidates.begin(), candidates.end(),
      [](const auto& a, const auto& b) { return median(a.rates) < median(b.rates); });
  attention_detail::set_page_streams(best->streams);
  return {best->streams.streams, best->streams.ahead, best->streams.into_l2,
          median(best->rates) * 1e-9};
}

}  // namespace moesaic
