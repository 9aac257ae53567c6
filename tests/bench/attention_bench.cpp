// Attention against what the machine could do: decode as a share of a plain read of other cold
// memory right after it, prefill and the vision tower as a share of the multiply-add peak. Read the
// `share` column; absolute rates of shared machines do not travel.
//   attention_bench [--benchmark_filter=...]     MOESAIC_ISA=avx2 attention_bench   for another
//   level
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "common/base/aligned_buffer.hpp"
#include "common/kernels/attention.hpp"
#include "common/kernels/ceilings.hpp"
#include "common/kernels/page_probe.hpp"

namespace moesaic {
namespace {

// The text decoder and the vision tower of the 28B model.
constexpr std::size_t kHeads = 20, kKvHeads = 4, kHeadDim = 128, kWidth = kHeads * kHeadDim;
constexpr std::size_t kVisionHeads = 16, kVisionDim = 80, kVisionWidth = kVisionHeads * kVisionDim;
/// Far beyond any last-level cache (the largest known here has 300 MiB).
constexpr std::size_t kColdBytes = std::size_t{1} << 30;

std::vector<float> gaussian(std::size_t n, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& v : x) v = normal(engine);
  return x;
}

double median(std::vector<double> v) {
  if (v.empty()) return 0;
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

/// The cache of one sequence of `tokens` tokens in a model of `layers` layers, where the KV cache
/// of the engine puts it: [blocks of 64 tokens][layers][KV heads]. The keys and values of 64 tokens
/// repeat.
struct Cache {
  AttentionShape shape;
  std::size_t blocks, layers, bytes;  ///< `bytes` of one layer
  AlignedBuffer memory;
  std::vector<const std::byte*> pages;  ///< [layers][KV heads][blocks]

  Cache(Compute kv, std::size_t tokens, std::size_t num_layers)
      : shape{kv, kHeads, kKvHeads, kHeadDim},
        blocks((tokens + kPageTokens - 1) / kPageTokens),
        layers(num_layers),
        bytes(blocks * kKvHeads * shape.page_bytes()),
        memory(AlignedBuffer::uninitialized(layers * bytes)) {
    const auto values = gaussian(2 * kPageTokens * kHeadDim, 1);
    for (std::size_t t = 0; t < kPageTokens; ++t)
      append_kv(shape, memory.data(), t, values.data() + 2 * t * kHeadDim,
                values.data() + (2 * t + 1) * kHeadDim);
    const std::size_t page = shape.page_bytes();
    for (std::size_t at = page; at < memory.size(); at += page)
      std::memcpy(memory.data() + at, memory.data(), page);
    for (std::size_t layer = 0; layer < layers; ++layer)
      for (std::size_t h = 0; h < kKvHeads; ++h)
        for (std::size_t b = 0; b < blocks; ++b)
          pages.push_back(memory.data() + ((b * layers + layer) * kKvHeads + h) * page);
  }

  static std::size_t layer_bytes(Compute kv, std::size_t tokens) {
    return Cache(kv, tokens, 1).bytes;
  }

  AttentionTask task(std::size_t layer, std::size_t tokens, std::size_t rows, const float* q,
                     float* out) const {
    AttentionTask t;
    t.q = q;
    t.q_stride = kWidth;
    t.rows = rows;
    t.first_position = tokens - rows;
    t.pages = pages.data() + layer % layers * kKvHeads * blocks;
    t.page_stride = blocks;
    t.out = {Compute::kF32, out, rows, kWidth, kWidth};
    return t;
  }
};

Compute compute_arg(const benchmark::State& state) {
  constexpr Compute kForms[] = {Compute::kF32, Compute::kBf16, Compute::kInt};
  return kForms[state.range(0)];
}

/// Wall time of passes that kept their cores; on one thread its CPU time, which needs no luck.
class PassRate {
 public:
  explicit PassRate(ThreadPool& pool) : timer_(pool), alone_(pool.size() == 1) {}

  /// @return wall seconds
  template <class F>
  double pass(double amount, std::vector<double>& rates, F&& fn) {
    const double seconds = timer_.time(fn);
    if (alone_)
      rates.push_back(amount / timer_.cpu_seconds() / 1e9);
    else if (timer_.clean())
      rates.push_back(amount / seconds / 1e9);
    return seconds;
  }

 private:
  PassTimer timer_;
  bool alone_;
};

/// One row, cold cache: args compute (0 f32, 1 bf16, 2 int8), tokens, threads. Layer after layer as
/// in a step, each beside a plain read of as many bytes of other memory, as cold.
void decode(benchmark::State& state) {
  const auto tokens = static_cast<std::size_t>(state.range(1));
  ThreadPool pool(static_cast<unsigned>(state.range(2)));
  const Compute kv = compute_arg(state);
  if (kv == Compute::kInt)
    state.counters["streams"] = static_cast<double>(tune_page_streams().streams);
  const Cache cache(kv, tokens,
                    std::max<std::size_t>(kColdBytes / Cache::layer_bytes(kv, tokens), 2));
  AlignedBuffer other = AlignedBuffer::uninitialized(cache.memory.size());
  std::memset(other.data(), 1, other.size());  // pages of its own, not the one of zeros
  const auto q = gaussian(kWidth, 2);
  std::vector<float> out(kWidth);
  PassRate timer(pool);
  std::vector<double> rate, read[3];
  std::size_t pass = 0;
  const auto bytes = static_cast<double>(cache.bytes);
  for (auto _ : state) {
    const auto task = cache.task(pass, tokens, 1, q.data(), out.data());
    state.SetIterationTime(timer.pass(bytes, rate, [&] {
      attention(cache.shape, {&task, 1}, pool);
    }));
    const std::size_t streams = pass % 3;
    const std::byte* plain = other.data() + pass % cache.layers * cache.bytes;
    timer.pass(bytes, read[streams], [&] { plain_read(plain, cache.bytes, 1U << streams, pool); });
    ++pass;
  }
  const double ceiling = std::max({median(read[0]), median(read[1]), median(read[2])});
  state.counters["GB/s"] = median(rate);
  state.counters["read"] = ceiling;
  state.counters["share"] = median(rate) / ceiling;
  state.counters["kept"] = static_cast<double>(rate.size());
}

/// Runs fn over and over and reports its rate; each pass is `flop` operations.
template <class F>
void against_peak(benchmark::State& state, ThreadPool& pool, double flop, F fn) {
  const double peak = measure_peak_gops(active_isa(), compute_arg(state), pool);
  PassRate timer(pool);
  std::vector<double> rate;
  for (auto _ : state) state.SetIterationTime(timer.pass(flop, rate, fn));
  state.counters["Gop/s"] = median(rate);
  state.counters["peak"] = peak;
  state.counters["share"] = median(rate) / peak;
  state.counters["kept"] = static_cast<double>(rate.size());
}

/// The last 512 rows of `tokens`.
void prefill(benchmark::State& state) {
  constexpr std::size_t kRows = 512;
  const auto tokens = static_cast<std::size_t>(state.range(1));
  ThreadPool pool(static_cast<unsigned>(state.range(2)));
  const Cache cache(compute_arg(state), tokens, 1);
  const auto q = gaussian(kRows * kWidth, 2);
  std::vector<float> out(kRows * kWidth);
  const auto task = cache.task(0, tokens, kRows, q.data(), out.data());
  const double keys = (static_cast<double>(tokens) - (kRows - 1) / 2.0) * kRows;
  against_peak(state, pool, 4 * keys * kWidth, [&] { attention(cache.shape, {&task, 1}, pool); });
}

void vision(benchmark::State& state) {
  const auto patches = static_cast<std::size_t>(state.range(1));
  ThreadPool pool(static_cast<unsigned>(state.range(2)));
  auto qkv = gaussian(patches * 3 * kVisionWidth, 3);
  AlignedBuffer out(patches * kVisionWidth * sizeof(float));
  const OperandOut y{compute_arg(state), out.data(), patches, kVisionWidth, kVisionWidth};
  const auto n = static_cast<double>(patches);
  against_peak(state, pool, 4 * n * n * kVisionWidth, [&] {
    attention_vision(qkv.data(), {}, patches, kVisionHeads, kVisionDim, y, pool);
  });
}

void shapes(benchmark::internal::Benchmark* b, std::initializer_list<std::int64_t> computes,
            std::initializer_list<std::int64_t> sizes) {
  b->ArgNames({"compute", "tokens", "threads"})->UseManualTime()->Unit(benchmark::kMicrosecond);
  for (const std::int64_t compute : computes)
    for (const std::int64_t size : sizes)
      for (const std::int64_t threads : {1, 2}) b->Args({compute, size, threads});
}

BENCHMARK(decode)->Apply([](auto* b) { shapes(b, {2, 1, 0}, {1024, 32768, 131072}); });
BENCHMARK(prefill)->Apply([](auto* b) { shapes(b, {2, 1, 0}, {512, 2048, 8192}); });
BENCHMARK(vision)->Apply([](auto* b) { shapes(b, {1, 0}, {1296, 5184}); });

}  // namespace
}  // namespace moesaic

int main(int argc, char** argv) {
  const auto isa = moesaic::choose_isa();
  if (!isa) {
    std::fprintf(stderr, "%s\n", isa.error().what.c_str());
    return 1;
  }
  benchmark::AddCustomContext("isa", std::string(moesaic::isa_name(*isa)));
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
