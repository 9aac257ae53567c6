#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/kernels/cpu/exp_simd.hpp"
#include "common/kernels/cpu/linear_level.hpp"
#include "common/kernels/cpu/rounding.hpp"
#include "common/tensor/bf16.hpp"

// The orders of sums written plainly, one row of activations at a time, and kept for ever: every
// other level must give these bits. Each body is compiled twice, so that std::fma is one
// instruction where the CPU has it and a call of the same result where it has not.

namespace moesaic::cpu {
namespace {

constexpr std::size_t kRows = 32;

/// Even (low) and odd (high) value of a pair of bf16.
struct Pair {
  float even, odd;
};

[[gnu::always_inline]] inline Pair weight_pair(const std::byte* w, std::size_t k, std::size_t row) {
  std::uint32_t bits;
  std::memcpy(&bits, w + k / 32 * 2048 + row / 16 * 1024 + k % 32 / 2 * 64 + row % 16 * 4,
              sizeof bits);
  return {std::bit_cast<float>(bits << 16), std::bit_cast<float>(bits & 0xffff0000u)};
}

[[gnu::always_inline]] inline void sum_bf16(const std::byte* w, const std::byte* x_bytes,
                                            std::size_t cols, float* c) {
  const auto* x = reinterpret_cast<const float*>(x_bytes);
  for (std::size_t k0 = 0; k0 < cols; k0 += 32)
    for (std::size_t row = 0; row < kRows; ++row) {
      float even = 0, odd = 0;
      for (std::size_t k = k0; k < k0 + 32; k += 2) {
        const auto pair = weight_pair(w, k, row);
        even = std::fma(pair.even, x[k], even);
        odd = std::fma(pair.odd, x[k + 1], odd);
      }
      c[row] = c[row] + (even + odd);
    }
}

[[gnu::always_inline]] inline void sum_widened(const std::byte* w, const std::byte* x_bytes,
                                               std::size_t cols, float* c) {
  const auto* x = reinterpret_cast<const float*>(x_bytes);
  for (std::size_t row = 0; row < kRows; ++row) {
    float sum = 0;
    for (std::size_t k = 0; k < cols; k += 2) {
      const auto pair = weight_pair(w, k, row);
      sum = std::fma(pair.even, x[k], sum);
      sum = std::fma(pair.odd, x[k + 1], sum);
    }
    c[row] = c[row] + sum;
  }
}

[[gnu::always_inline]] inline void sum_f32(const std::byte* w_bytes, const std::byte* x_bytes,
                                           std::size_t cols, float* c) {
  const auto* x = reinterpret_cast<const float*>(x_bytes);
  const auto* w = reinterpret_cast<const float*>(w_bytes);
  for (std::size_t row = 0; row < kRows; ++row) {
    float sum = 0;
    for (std::size_t k = 0; k < cols; ++k) sum = std::fma(w[k * kRows + row], x[k], sum);
    c[row] = c[row] + sum;
  }
}

using Body = void (*)(const std::byte*, const std::byte*, std::size_t, float*);

template <Body body>
void plain(const std::byte* w, const std::byte* x, std::size_t cols, float* c, const std::byte*) {
  body(w, x, cols, c);
}

#define MOESAIC_WITH_FMA(name, body)                                                         \
  [[gnu::target("fma")]] void name(const std::byte* w, const std::byte* x, std::size_t cols, \
                                   float* c, const std::byte*) {                             \
    body(w, x, cols, c);                                                                     \
  }
MOESAIC_WITH_FMA(fma_bf16, sum_bf16)
MOESAIC_WITH_FMA(fma_widened, sum_widened)
MOESAIC_WITH_FMA(fma_f32, sum_f32)
#undef MOESAIC_WITH_FMA

void silu_mul(const float* gate, const float* up, bool round, float* h) {
  for (int i = 0; i < 16; ++i) {
    const float y = silu1(gate[i]) * up[i];
    h[i] = round ? round_to_bf16(y) : y;
  }
}

void leaves(const float* c, float weight, float* y_f32, Bf16* y_bf16) {
  for (std::size_t i = 0; i < 32; ++i) store_row1(weight * c[i], i, false, y_f32, y_bf16);
}

void activate(const SumRows& x, Activation activation, float* y_f32, Bf16* y_bf16,
              std::size_t ldy) {
  activate_by(elementwise_for(Isa::kScalar), x, activation, y_f32, y_bf16, ldy);
}

constexpr TileSet one_row(TileFn tile, bool flush_denormals) {
  TileSet set{.group_rows = 1, .flush_denormals = flush_denormals};
  for (auto& tiles : set.tiles) tiles[0] = tile;
  return set;
}

constexpr LinearLevel make_level(TileFn bf16, TileFn widened, TileFn f32) {
  return {.sums = {one_row(bf16, true), one_row(widened, false), one_row(f32, false)},
          .integer = &kIntegerScalar,
          .silu_mul = silu_mul,
          .store = store_plain,
          .activate = activate,
          .leaves = leaves};
}

}  // namespace

const LinearLevel& linear_scalar() {
  static const LinearLevel level =
      available_isas().size() > 1 ? make_level(fma_bf16, fma_widened, fma_f32)
                                  : make_level(plain<sum_bf16>, plain<sum_widened>, plain<sum_f32>);
  return level;
}

}  // namespace moesaic::cpu
