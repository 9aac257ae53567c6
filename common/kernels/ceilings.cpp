#include "common/kernels/ceilings.hpp"

#include <immintrin.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "common/base/aligned_buffer.hpp"
#include "common/base/time_slices.hpp"
#include "common/kernels/cpu/amx.hpp"

namespace moesaic {
namespace {

double seconds_of(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}
double wall_seconds() { return seconds_of(CLOCK_MONOTONIC); }

/// Keeps results alive.
std::atomic<std::uint64_t> sink;

constexpr std::size_t kStep = 512;

template <unsigned kStreams>
[[gnu::target("avx512f")]] std::uint64_t read_avx512(const std::byte* data, std::size_t bytes) {
  const std::size_t per = bytes / kStreams;
  __m512i a[8];
  for (auto& x : a) x = _mm512_setzero_si512();
  for (std::size_t i = 0; i < per; i += kStep)
#pragma GCC unroll 4
    for (unsigned s = 0; s < kStreams; ++s)
#pragma GCC unroll 8
      for (std::size_t j = 0; j < 8; ++j)
        a[j] = _mm512_or_si512(a[j], _mm512_load_si512(data + s * per + i + j * 64));
  for (int j = 1; j < 8; ++j) a[0] = _mm512_or_si512(a[0], a[j]);
  return static_cast<std::uint64_t>(_mm512_reduce_or_epi64(a[0]));
}

template <unsigned kStreams>
[[gnu::target("avx2")]] std::uint64_t read_avx2(const std::byte* data, std::size_t bytes) {
  const std::size_t per = bytes / kStreams;
  __m256i a[8];
  for (auto& x : a) x = _mm256_setzero_si256();
  for (std::size_t i = 0; i < per; i += kStep)
#pragma GCC unroll 4
    for (unsigned s = 0; s < kStreams; ++s)
#pragma GCC unroll 16
      for (std::size_t j = 0; j < 16; ++j) {
        const std::byte* p = data + s * per + i + j * 32;
        a[j % 8] =
            _mm256_or_si256(a[j % 8], _mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
      }
  for (int j = 1; j < 8; ++j) a[0] = _mm256_or_si256(a[0], a[j]);
  return static_cast<std::uint64_t>(_mm256_extract_epi64(a[0], 0));
}

template <unsigned kStreams>
std::uint64_t read_scalar(const std::byte* data, std::size_t bytes) {
  const std::size_t per = bytes / kStreams;
  std::uint64_t all = 0;
  for (std::size_t i = 0; i < per; i += 8)
    for (unsigned s = 0; s < kStreams; ++s) {
      std::uint64_t x;
      std::memcpy(&x, data + s * per + i, sizeof x);
      all |= x;
    }
  return all;
}

template <unsigned kStreams>
std::uint64_t read_streams(const std::byte* data, std::size_t bytes) {
  static const Isa best = available_isas().back();
  if (best >= Isa::kAvx512) return read_avx512<kStreams>(data, bytes);
  if (best >= Isa::kAvx2) return read_avx2<kStreams>(data, bytes);
  return read_scalar<kStreams>(data, bytes);
}

// Loops of one instruction on enough independent sums to hide its latency; `kSums` sums a step.
constexpr std::size_t kSums = 16;

[[gnu::target("avx512f")]] void fma16(std::size_t steps) {
  __m512 sums[kSums];
  for (auto& s : sums) s = _mm512_setzero_ps();
  __m512 a = _mm512_set1_ps(0.5f);
  asm volatile("" : "+v"(a));
  for (std::size_t i = 0; i < steps; ++i)
#pragma GCC unroll 16
    for (auto& s : sums) asm volatile("vfmadd231ps %1, %1, %0" : "+v"(s) : "v"(a));
}

[[gnu::target("avx512f,avx512bf16")]] void dpbf16(std::size_t steps) {
  __m512 sums[kSums];
  for (auto& s : sums) s = _mm512_setzero_ps();
  __m512i a = _mm512_set1_epi32(0x3f003f00);
  asm volatile("" : "+v"(a));
  for (std::size_t i = 0; i < steps; ++i)
#pragma GCC unroll 16
    for (auto& s : sums) asm volatile("vdpbf16ps %1, %1, %0" : "+v"(s) : "v"(a));
}

[[gnu::target("avx512f,avx512vnni")]] void dpbusd16(std::size_t steps) {
  __m512i sums[kSums];
  for (auto& s : sums) s = _mm512_setzero_si512();
  __m512i a = _mm512_set1_epi8(1);
  asm volatile("" : "+v"(a));
  for (std::size_t i = 0; i < steps; ++i)
#pragma GCC unroll 16
    for (auto& s : sums) asm volatile("vpdpbusd %1, %1, %0" : "+v"(s) : "v"(a));
}

/// Sums of zeros, and operands that are no zeros: products of zeros are a tenth faster than others.
MOESAIC_AMX void fill_tiles() {
  alignas(64) std::uint16_t values[512];
  for (std::size_t i = 0; i < 512; ++i) values[i] = static_cast<std::uint16_t>(0x3f80 + i % 128);
  MOESAIC_TILE_LOAD(4, values, 64);
  MOESAIC_TILE_LOAD(5, values, 64);
  MOESAIC_TILE_LOAD(6, values, 64);
  MOESAIC_TILE_LOAD(7, values, 64);
  MOESAIC_TILE_ZERO(0);
  MOESAIC_TILE_ZERO(1);
  MOESAIC_TILE_ZERO(2);
  MOESAIC_TILE_ZERO(3);
}

/// Four tiles of sums, products of 16 x 16 x 64 bytes: of int8 or of bf16.
template <bool kInt8>
MOESAIC_AMX void tile_products(std::size_t steps) {
  const cpu::WholeTiles tiles;
  fill_tiles();
  for (std::size_t i = 0; i < steps / 16; ++i) {
    if constexpr (kInt8) {
      MOESAIC_TILE_DOT(tdpbssd, 0, 4, 6);
      MOESAIC_TILE_DOT(tdpbssd, 1, 4, 7);
      MOESAIC_TILE_DOT(tdpbssd, 2, 5, 6);
      MOESAIC_TILE_DOT(tdpbssd, 3, 5, 7);
    } else {
      MOESAIC_TILE_DOT(tdpbf16ps, 0, 4, 6);
      MOESAIC_TILE_DOT(tdpbf16ps, 1, 4, 7);
      MOESAIC_TILE_DOT(tdpbf16ps, 2, 5, 6);
      MOESAIC_TILE_DOT(tdpbf16ps, 3, 5, 7);
    }
  }
}

/// Products of words added in pairs, and the sums.
[[gnu::target("avx2")]] void madd8(std::size_t steps) {
  __m256i sums[kSums - 4];
  for (auto& s : sums) s = _mm256_setzero_si256();
  __m256i a = _mm256_set1_epi16(1);
  asm volatile("" : "+x"(a));
  for (std::size_t i = 0; i < steps; ++i)
#pragma GCC unroll 16
    for (auto& s : sums) {
      __m256i product;
      asm volatile("vpmaddwd %1, %1, %0" : "=x"(product) : "x"(a));
      asm volatile("vpaddd %1, %0, %0" : "+x"(s) : "x"(product));
    }
}

void integer_mul_add1(std::size_t steps) {
  std::int32_t sums[8] = {};
  std::int32_t a = 1;
  asm volatile("" : "+r"(a));
  for (std::size_t i = 0; i < steps; ++i)
#pragma GCC unroll 8
    for (auto& s : sums) {
      std::int32_t product = a;
      asm volatile("imull %1, %0" : "+r"(product) : "r"(a));
      asm volatile("addl %1, %0" : "+r"(s) : "r"(product));
    }
}

[[gnu::target("avx2,fma")]] void fma8(std::size_t steps) {
  __m256 sums[kSums - 4];
  for (auto& s : sums) s = _mm256_setzero_ps();
  __m256 a = _mm256_set1_ps(0.5f);
  asm volatile("" : "+x"(a));
  for (std::size_t i = 0; i < steps; ++i)
#pragma GCC unroll 16
    for (auto& s : sums) asm volatile("vfmadd231ps %1, %1, %0" : "+x"(s) : "x"(a));
}

[[gnu::target("fma")]] void fma1(std::size_t steps) {
  float sums[kSums - 4] = {};
  float a = 0.5f;
  asm volatile("" : "+x"(a));
  for (std::size_t i = 0; i < steps; ++i)
#pragma GCC unroll 16
    for (auto& s : sums) asm volatile("vfmadd231ss %1, %1, %0" : "+x"(s) : "x"(a));
}

/// Without a fused instruction: a multiplication and an addition.
void mul_add1(std::size_t steps) {
  float sums[kSums - 4] = {};
  float a = 0.5f;
  asm volatile("" : "+x"(a));
  for (std::size_t i = 0; i < steps; ++i)
#pragma GCC unroll 16
    for (auto& s : sums) {
      float product = a;
      asm volatile("mulss %1, %0" : "+x"(product) : "x"(a));
      asm volatile("addss %1, %0" : "+x"(s) : "x"(product));
    }
}

struct Loop {
  void (*run)(std::size_t steps);
  double ops_per_step;
};

Loop loop_for(Isa isa, Compute compute) {
  if (isa == Isa::kAmx && compute != Compute::kF32) {
    constexpr double kTileProducts = 4 * 16 * 16 * 2 / 16.0;  // of 4-byte elements, a step
    return compute == Compute::kInt ? Loop{tile_products<true>, 64 * kTileProducts}
                                    : Loop{tile_products<false>, 32 * kTileProducts};
  }
  if (compute == Compute::kInt) {
    if (isa >= Isa::kAvx512) return {dpbusd16, 128.0 * kSums};
    if (isa == Isa::kAvx2) return {madd8, 32.0 * (kSums - 4)};
    return {integer_mul_add1, 2.0 * 8};
  }
  switch (isa) {
    case Isa::kAvx512Bf16:
      if (compute == Compute::kBf16) return {dpbf16, 64.0 * kSums};
      [[fallthrough]];
    case Isa::kAvx512:
    case Isa::kAmx:
      return {fma16, 32.0 * kSums};
    case Isa::kAvx2:
      return {fma8, 16.0 * (kSums - 4)};
    case Isa::kScalar:
      break;
  }
  const bool fused = available_isas().size() > 1;
  return {fused ? fma1 : mul_add1, 2.0 * (kSums - 4)};
}

}  // namespace

void plain_read(const std::byte* data, std::size_t bytes, unsigned streams) {
  assert(streams == 1 || streams == 2 || streams == 4);
  const auto read = streams == 1   ? read_streams<1>
                    : streams == 2 ? read_streams<2>
                                   : read_streams<4>;
  sink.fetch_or(read(data, bytes), std::memory_order_relaxed);
}

void plain_read(const std::byte* data, std::size_t bytes, unsigned streams, ThreadPool& pool) {
  const std::size_t share = bytes / pool.size() / 2048 * 2048;
  pool.parallel_for(pool.size(),
                    [&](std::size_t i) { plain_read(data + i * share, share, streams); });
}

double measure_read_gbs(ThreadPool& pool, std::size_t bytes) {
  const std::size_t pass = std::min(bytes, std::size_t{16} << 20);
  const std::size_t passes = bytes / pass;
  AlignedBuffer area(passes * pass);
  std::memset(area.data(), 1, area.size());
  double best = 0;
  for (const unsigned streams : {1u, 2u, 4u})
    for (std::size_t i = 0; i < passes; ++i) {
      const double start = wall_seconds();
      plain_read(area.data() + i * pass, pass, streams, pool);
      best = std::max(best, static_cast<double>(pass) / (wall_seconds() - start));
    }
  return best / 1e9;
}

double measure_peak_gops(Isa isa, Compute compute, ThreadPool& pool, double seconds) {
  constexpr std::size_t kSteps = 20'000;
  const auto loop = loop_for(isa, compute);
  std::vector<double> rates(pool.size(), 0.0);
  pool.parallel_for(pool.size(), [&](std::size_t worker) {
    const double end = wall_seconds() + seconds, start = seconds_of(CLOCK_THREAD_CPUTIME_ID);
    double ops = 0;
    do {
      loop.run(kSteps);
      ops += loop.ops_per_step * kSteps;
    } while (wall_seconds() < end);
    rates[worker] = ops / (seconds_of(CLOCK_THREAD_CPUTIME_ID) - start);
  });
  return std::accumulate(rates.begin(), rates.end(), 0.0) / 1e9;
}

namespace {

long involuntary_switches() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_nivcsw;
}

}  // namespace

PassTimer::PassTimer(ThreadPool& pool) : pool_(pool) {
  pool.on_every_worker([] { ask_for_time_slices(std::chrono::milliseconds(100)); });
}

void PassTimer::start() {
  // Wakes sleeping workers, so that a pass does not begin with that.
  pool_.parallel_for(pool_.size(), [](std::size_t) {});
  switches_ = involuntary_switches();
  cpu_ = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
  wall_ = wall_seconds();
}

double PassTimer::stop() {
  const double wall = wall_seconds() - wall_;
  cpu_ = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu_;
  clean_ = involuntary_switches() == switches_;
  return wall;
}

}  // namespace moesaic
