#pragma once

#include <immintrin.h>

#include <cstddef>

#include "common/kernels/cpu/exp_simd.hpp"
#include "common/kernels/cpu/linear_level.hpp"
#include "common/kernels/cpu/rounding_simd.hpp"
#include "common/kernels/cpu/targets.hpp"

// The end of an integer product with 64-byte vectors: row scales, and the epilogue.

namespace moesaic::cpu {

/// Sums of a panel, waiting for its scales and what becomes of them.
struct FinishedPanel {
  Epilogue epilogue;
  std::size_t panel = 0;
  std::size_t first_row = 0;  ///< of the layout
  std::size_t rows = 0;
  const float* scales = nullptr;  ///< [32]
  float* sums = nullptr;          ///< [rows][ld], 64-byte aligned
  std::size_t ld = 0;
};

/// A line of results; unless it is streamed, a line that will be stored soon is fetched: a store
/// that misses L2 holds up all behind it.
/// @param next bytes from y to that line
MOESAIC_AVX512_INLINE void store_line(bool stream, void* y, std::size_t next, __m512i v) {
  if (stream) return _mm512_stream_si512(static_cast<__m512i*>(y), v);
  _mm_prefetch(static_cast<const std::byte*>(y) + next, _MM_HINT_T1);
  _mm512_storeu_si512(y, v);
}

/// What becomes of a row's scaled sums, of outputs 0-15 and 16-31 of a panel.
/// @param taken where the sums go if a sink is to take them
/// @param next  elements from these outputs to those that will be stored when the other rows are
///              done: the next panel's, if not told otherwise
template <bool kSiluMul>
MOESAIC_AVX512_INLINE void finish_row(const Epilogue& e, std::size_t panel, std::size_t row,
                                      __m512 v0, __m512 v1, float* taken, std::size_t next = 32) {
  if constexpr (kSiluMul) {
    float* y = e.out + row * e.ld + panel * 16;
    _mm_prefetch(y + 16, _MM_HINT_T1);
    _mm512_storeu_ps(y, _mm512_mul_ps(silu16(v0), v1));
    return;
  }
  using enum Epilogue::Kind;
  const bool rows = e.kind == kRows || e.kind == kLeaves;
  if (e.bias != nullptr) {
    v0 = _mm512_add_ps(v0, _mm512_loadu_ps(e.bias + panel * 32));
    v1 = _mm512_add_ps(v1, _mm512_loadu_ps(e.bias + panel * 32 + 16));
  }
  if (rows) {
    const __m512 w = _mm512_set1_ps(e.weights == nullptr ? 1.0F : e.weights[row]);
    v0 = _mm512_mul_ps(v0, w);
    v1 = _mm512_mul_ps(v1, w);
  }
  if (e.kind == kLeaves || e.kind == kQuickGelu) {
    if (e.kind == kQuickGelu) {
      v0 = quick_gelu16(v0);
      v1 = quick_gelu16(v1);
    }
    Bf16* y = rows ? static_cast<Bf16*>(e.rows[row]) : e.out_bf16 + row * e.ld;
    return store_line(e.stream, y + panel * 32, next * sizeof(Bf16), to_bf16x32(v0, v1));
  }
  float* y = taken;
  if (e.kind != kTake)
    y = (rows ? static_cast<float*>(e.rows[row]) : e.out + row * e.ld) + panel * 32;
  if (e.kind == kAdd) {
    v0 = _mm512_add_ps(_mm512_loadu_ps(y), v0);
    v1 = _mm512_add_ps(_mm512_loadu_ps(y + 16), v1);
  }
  store_line(e.stream, y, next * sizeof(float), _mm512_castps_si512(v0));
  store_line(e.stream, y + 16, next * sizeof(float), _mm512_castps_si512(v1));
}

/// How the sums of a panel are finished row by row, if they are.
inline Epilogue epilogue_of(const PackedMatrix& w, const PanelSink& sink, std::size_t panel) {
  const std::size_t width = w.gate_up ? 16 : 32;
  return (panel + 1) * width <= w.rows ? sink.epilogue() : Epilogue{};
}

template <bool kSiluMul>
MOESAIC_AVX512 void finish_rows(const FinishedPanel& r) {
  const __m512 s0 = _mm512_load_ps(r.scales), s1 = _mm512_load_ps(r.scales + 16);
  for (std::size_t i = 0; i < r.rows; ++i) {
    float* sums = r.sums + i * r.ld;
    finish_row<kSiluMul>(r.epilogue, r.panel, r.first_row + i,
                         _mm512_mul_ps(_mm512_load_ps(sums), s0),
                         _mm512_mul_ps(_mm512_load_ps(sums + 16), s1), sums);
  }
}

/// All rows at once.
inline void finish_panel(const FinishedPanel& r, const IntegerJob& job) {
  if (r.epilogue.kind == Epilogue::Kind::kSiluMul)
    finish_rows<true>(r);
  else
    finish_rows<false>(r);
  if (r.epilogue.kind == Epilogue::Kind::kTake)
    job.sink->take(r.panel, r.first_row, r.rows, r.sums, r.ld);
}

}  // namespace moesaic::cpu
