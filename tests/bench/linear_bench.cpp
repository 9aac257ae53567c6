// Matrix products against what the machine could do: gemv as a share of a plain read of other cold
// memory right after it, batches as a share of the multiply-add peak. Read the `share` column;
// absolute rates of shared machines do not travel.
//   linear_bench [--benchmark_filter=...]     MOESAIC_ISA=avx2 linear_bench   for another level
// The peak is that of the level: of tiles at amx, of vpdpbusd at avx512.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "common/base/aligned_buffer.hpp"
#include "common/kernels/ceilings.hpp"
#include "common/kernels/linear.hpp"
#include "common/kernels/stream_probe.hpp"
#include "common/tensor/bf16.hpp"

namespace moesaic {
namespace {

/// Far beyond any last-level cache share of a virtual machine.
constexpr std::size_t kColdBytes = std::size_t{768} << 20;

std::uint32_t next_random(std::uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return static_cast<std::uint32_t>(state >> 32);
}

/// Bf16 values in (-2, -0.5] and [0.5, 2), for every matrix of a run.
const AlignedBuffer& cold_area() {
  static const AlignedBuffer area = [] {
    AlignedBuffer buffer(kColdBytes);
    std::uint64_t state = 88172645463325252ull;
    for (auto& pair : buffer.as<std::uint32_t>())
      pair = (next_random(state) & 0x80ff80ffu) | 0x3f003f00u;
    return buffer;
  }();
  return area;
}

/// Matrices side by side in the cold area, taken in turn.
class ColdMatrices {
 public:
  ColdMatrices(std::size_t rows, std::size_t cols, WeightFormat format) {
    matrix_.format = format;
    matrix_.rows = rows;
    matrix_.cols = cols;
    matrix_.data = cold_area().data();
    count_ = kColdBytes / matrix_.bytes();
  }
  PackedMatrix next() { return at(turn_++); }
  /// Memory as large as a matrix that was not read for half a round.
  const std::byte* other() const { return at(turn_ + count_ / 2).data; }
  std::size_t bytes() const { return matrix_.bytes() / 2048 * 2048; }

 private:
  PackedMatrix at(std::size_t i) const {
    auto m = matrix_;
    m.data += i % count_ * m.bytes();
    return m;
  }
  PackedMatrix matrix_;
  std::size_t count_ = 0, turn_ = 0;
};

/// Rows of activations in one mode.
struct Rows {
  AlignedBuffer memory;
  Operand x;
  Rows(Compute compute, std::size_t rows, std::size_t cols) {
    memory = AlignedBuffer(rows * cols * operand_bytes(compute));
    std::uint64_t state = 1234567;
    for (std::size_t i = 0; i < rows * cols; ++i) {
      const float value = static_cast<float>(next_random(state) >> 8) * 0x1p-24f - 0.5f;
      if (compute == Compute::kF32) {
        memory.as<float>()[i] = value;
      } else {
        memory.as<Bf16>()[i] = f32_to_bf16(value);
      }
    }
    x = {compute, memory.data(), rows, cols, cols};
  }
};

double median(std::vector<double> v) {
  if (v.empty()) return 0;
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

WeightFormat format_arg(const benchmark::State& state, int i) {
  return static_cast<WeightFormat>(state.range(i));
}
Compute rows_for(WeightFormat format) {
  return format == WeightFormat::kF32 ? Compute::kF32 : Compute::kBf16;
}
Compute sums_of(WeightFormat format) {
  return is_integer(format) ? Compute::kInt : rows_for(format);
}

double peak(Compute compute, ThreadPool& pool) {
  static std::map<std::pair<Compute, unsigned>, double> known;
  auto& value = known[{compute, pool.size()}];
  if (value == 0) value = measure_peak_gops(active_isa(), compute, pool);
  return value;
}

/// Few rows: args rows, K, N, format (WeightFormat: 0 f32, 1 bf16, 2 w8, 3 w4, 4 ccq2, 5 ccq2.5,
/// 6 ccq2.75), threads.
void few_rows(benchmark::State& state) {
  const auto m = static_cast<std::size_t>(state.range(0));
  const auto k = static_cast<std::size_t>(state.range(1));
  const auto n = static_cast<std::size_t>(state.range(2));
  ThreadPool pool(static_cast<unsigned>(state.range(4)));
  ColdMatrices weights(n, k, format_arg(state, 3));
  const Rows rows(rows_for(format_arg(state, 3)), m, k);
  std::vector<float> y(m * n);
  PassTimer timer(pool);
  std::vector<double> rate, share, read[3];
  std::size_t pass = 0;
  for (auto _ : state) {
    const auto w = weights.next();
    const double seconds = timer.time([&] { linear(w, rows.x, y.data(), n, nullptr, pool); });
    const bool clean = timer.clean();
    state.SetIterationTime(seconds);
    const double bytes = static_cast<double>(weights.bytes());
    const std::size_t streams = pass++ % 3;
    const double read_seconds =
        timer.time([&] { plain_read(weights.other(), weights.bytes(), 1u << streams, pool); });
    if (!clean || !timer.clean()) continue;
    rate.push_back(bytes / seconds / 1e9);
    read[streams].push_back(bytes / read_seconds / 1e9);
  }
  const double ceiling = std::max({median(read[0]), median(read[1]), median(read[2])});
  state.counters["GB/s"] = median(rate);
  state.counters["read"] = ceiling;
  state.counters["share"] = median(rate) / ceiling;
  state.counters["kept"] = static_cast<double>(rate.size());
}

/// Many rows: args rows, K, N, format, threads.
void many_rows(benchmark::State& state) {
  const auto m = static_cast<std::size_t>(state.range(0));
  const auto k = static_cast<std::size_t>(state.range(1));
  const auto n = static_cast<std::size_t>(state.range(2));
  const auto format = format_arg(state, 3);
  ThreadPool pool(static_cast<unsigned>(state.range(4)));
  ColdMatrices weights(n, k, format);
  const Rows rows(rows_for(format), m, k);
  std::vector<float> y(m * n);
  PassTimer timer(pool);
  std::vector<double> rate;
  const double ops = 2.0 * static_cast<double>(m) * static_cast<double>(k) * static_cast<double>(n);
  for (auto _ : state) {
    const auto w = weights.next();
    const double seconds = timer.time([&] { linear(w, rows.x, y.data(), n, nullptr, pool); });
    state.SetIterationTime(seconds);
    if (pool.size() == 1) {
      rate.push_back(ops / timer.cpu_seconds() / 1e9);
    } else if (timer.clean()) {
      rate.push_back(ops / seconds / 1e9);
    }
  }
  state.counters["GFLOP/s"] = median(rate);
  state.counters["peak"] = peak(sums_of(format), pool);
  state.counters["share"] = median(rate) / peak(sums_of(format), pool);
  state.counters["kept"] = static_cast<double>(rate.size());
}

/// The experts of one MoE layer, 2560 wide: args tokens, experts per token, threads, format.
/// Experts are taken in turn from the cold area, token t gets experts t * per_token ..; all 1536
/// wide.
void experts(benchmark::State& state) {
  constexpr std::size_t kHidden = 2560, kWidth = 1536, kExperts = 24;
  const auto tokens = static_cast<std::size_t>(state.range(0));
  const auto per_token = static_cast<std::size_t>(state.range(1));
  ThreadPool pool(static_cast<unsigned>(state.range(2)));
  const auto format = format_arg(state, 3);
  ColdMatrices weights(2 * kWidth, kHidden, format), other(3 * kWidth, kHidden, format);
  std::vector<PackedMatrix> gate_up(kExperts), down(kExperts);
  for (std::size_t e = 0; e < kExperts; ++e) {
    gate_up[e] = weights.next();
    gate_up[e].rows = kWidth;
    gate_up[e].gate_up = true;
    down[e] = weights.next();
    down[e].rows = kHidden;
    down[e].cols = kWidth;
  }
  const Rows rows(Compute::kBf16, tokens, kHidden);
  std::vector<Bf16> y(tokens * per_token * kHidden);
  FfnScratch scratch;
  PassTimer timer(pool);
  std::vector<double> rate, share;
  std::size_t turn = 0;
  for (auto _ : state) {
    std::vector<std::vector<std::uint32_t>> chosen(kExperts);
    std::vector<std::vector<void*>> out(kExperts);
    for (std::size_t i = 0; i < tokens * per_token; ++i) {
      const std::size_t e = (turn + i) % kExperts;
      chosen[e].push_back(static_cast<std::uint32_t>(i / per_token));
      out[e].push_back(y.data() + i * kHidden);
    }
    turn += tokens * per_token;
    const std::vector<float> ones(tokens, 1.0f);
    std::vector<FfnTask> tasks;
    for (std::size_t e = 0; e < kExperts; ++e)
      if (!chosen[e].empty())
        tasks.push_back({&gate_up[e], &down[e], chosen[e], std::span(ones).first(chosen[e].size()),
                         out[e].data(), Compute::kBf16});
    const double seconds = timer.time([&] { ffn(tasks, rows.x, scratch, pool); });
    const bool clean = timer.clean();
    state.SetIterationTime(seconds);
    const double values = 3.0 * kHidden * kWidth;
    if (tokens * per_token <= kExperts) {
      const double bytes =
          static_cast<double>((gate_up[0].bytes() + down[0].bytes()) * tasks.size());
      const double read_seconds =
          timer.time([&] { plain_read(other.other(), other.bytes(), 2, pool); });
      if (!clean || !timer.clean()) continue;
      rate.push_back(bytes / seconds / 1e9);
      share.push_back(rate.back() * read_seconds / static_cast<double>(other.bytes()) * 1e9);
    } else if (clean || pool.size() == 1) {
      const double ops = values * 2 * static_cast<double>(tokens * per_token);
      rate.push_back(ops / (pool.size() == 1 ? timer.cpu_seconds() : seconds) / 1e9);
      share.push_back(rate.back() / peak(sums_of(format), pool));
    }
  }
  state.counters[tokens * per_token <= kExperts ? "GB/s" : "GFLOP/s"] = median(rate);
  state.counters["share"] = median(share);
  state.counters["kept"] = static_cast<double>(rate.size());
}

void expert_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"tokens", "per_token", "threads", "format"})->UseManualTime();
  for (const int format : {1, 3})
    for (const int threads : {1, 2})
      // 192 and 768: 48 and 192 rows an expert, as in a chunk of 512 and of 2048 tokens.
      for (const int tokens : {1, 4, 192, 768}) b->Args({tokens, 6, threads, format});
}

void decode_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"M", "K", "N", "format", "threads"})->UseManualTime();
  for (const int threads : {1, 2}) {
    for (const int m : {1, 2, 4, 6, 8, 12}) b->Args({m, 2560, 3072, 1, threads});
    b->Args({1, 1536, 2560, 1, threads});
    b->Args({1, 2560, 3072, 0, threads});
    for (const int format : {2, 3, 4, 5, 6})
      for (const int m : {1, 2, 3, 4, 8, 12}) b->Args({m, 2560, 3072, format, threads});
  }
}

void prefill_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"M", "K", "N", "format", "threads"})->UseManualTime();
  for (const int threads : {1, 2}) {
    for (const int m : {16, 48, 128, 512}) b->Args({m, 2560, 3072, 1, threads});
    b->Args({512, 2560, 512, 1, threads});
    b->Args({512, 2560, 3072, 0, threads});
    b->Args({512, 1536, 2560, 1, threads});
    for (const int format : {2, 3, 4, 5, 6})
      for (const int m : {9, 16, 32, 48, 96, 192, 256, 512})
        b->Args({m, 2560, 3072, format, threads});
    for (const int m : {48, 192, 512}) b->Args({m, 1536, 2560, 3, threads});
    // The vision tower.
    b->Args({1024, 588, 1280, 1, threads});
    for (const int n : {1280, 3840, 5120}) b->Args({1024, 1280, n, 1, threads});
    b->Args({1024, 5120, 1280, 1, threads});
  }
}

BENCHMARK(few_rows)->Apply(decode_shapes);
BENCHMARK(many_rows)->Apply(prefill_shapes);
BENCHMARK(experts)->Apply(expert_shapes);

}  // namespace
}  // namespace moesaic

int main(int argc, char** argv) {
  const auto isa = moesaic::choose_isa();
  if (!isa) {
    std::fprintf(stderr, "%s\n", isa.error().what.c_str());
    return 1;
  }
  benchmark::AddCustomContext("isa", std::string(moesaic::isa_name(*isa)));
  const auto said = [](const moesaic::StreamChoice& of) {
    return std::to_string(of.panels) + " panels, " + std::to_string(of.ahead) + " bytes ahead" +
           (of.into_l2 ? " into L2" : "");
  };
  const auto streams = moesaic::tune_streams();
  benchmark::AddCustomContext("streams of one row", said(streams.row));
  benchmark::AddCustomContext("streams of several", said(streams.rows));
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
