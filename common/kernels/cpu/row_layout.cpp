#include "common/kernels/cpu/row_layout.hpp"

#include <emmintrin.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdint>
#include <cstring>

#include "common/base/aligned_buffer.hpp"
#include "common/kernels/elementwise.hpp"
#include "common/kernels/quantize_rows.hpp"
#include "common/tensor/bf16.hpp"

namespace moesaic::cpu {
namespace {

/// The row of an operand that stands in row i of a layout.
std::size_t picked(const std::uint32_t* rows, std::size_t i) {
  return rows == nullptr ? i : rows[i];
}

// A prepared row is a sequence of 32-bit elements, one per column (widened) or pair of columns. How
// each source yields them: four at a time, or the one at `i` of `cols` columns.

struct FromF32 {
  using Value = float;
  static constexpr std::size_t kCols = 1;
  static __m128i four(const float* p, std::size_t i) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i));
  }
  static std::uint32_t one(const float* p, std::size_t i, std::size_t) {
    return std::bit_cast<std::uint32_t>(p[i]);
  }
};
struct FromBf16 {
  using Value = Bf16;
  static constexpr std::size_t kCols = 1;
  static __m128i four(const Bf16* p, std::size_t i) {
    const __m128i halves = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + i));
    return _mm_unpacklo_epi16(_mm_setzero_si128(), halves);
  }
  static std::uint32_t one(const Bf16* p, std::size_t i, std::size_t) {
    return std::uint32_t{p[i]} << 16;
  }
};
struct FromBf16Pairs {
  using Value = Bf16;
  static constexpr std::size_t kCols = 2;
  static __m128i four(const Bf16* p, std::size_t i) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 2 * i));
  }
  static std::uint32_t one(const Bf16* p, std::size_t i, std::size_t cols) {
    const std::uint32_t odd = 2 * i + 1 < cols ? p[2 * i + 1] : Bf16{0};
    return p[2 * i] | odd << 16;
  }
};

void store_lanes(std::uint32_t* out, __m128i v, std::size_t lanes) {
  if (lanes == 4) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), v);
    return;
  }
  if (lanes >= 2) _mm_storel_epi64(reinterpret_cast<__m128i*>(out), v);
  if (lanes == 3) out[2] = static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_srli_si128(v, 8)));
}

/// Interleaves `lanes` (<= 4) rows of one block.
/// @param out first element of the first of these rows; elements of a row are `step` apart
template <class From>
void interleave(const typename From::Value* const rows[4], std::size_t lanes, std::size_t cols,
                std::size_t padded, std::uint32_t* out, std::size_t step) {
  std::size_t i = 0;
  if (lanes > 1)
    for (; (i + 4) * From::kCols <= cols; i += 4) {
      __m128i r[4];
      for (std::size_t l = 0; l < 4; ++l) r[l] = From::four(rows[l], i);
      const __m128i a = _mm_unpacklo_epi32(r[0], r[1]), b = _mm_unpacklo_epi32(r[2], r[3]);
      const __m128i c = _mm_unpackhi_epi32(r[0], r[1]), d = _mm_unpackhi_epi32(r[2], r[3]);
      store_lanes(out + i * step, _mm_unpacklo_epi64(a, b), lanes);
      store_lanes(out + (i + 1) * step, _mm_unpackhi_epi64(a, b), lanes);
      store_lanes(out + (i + 2) * step, _mm_unpacklo_epi64(c, d), lanes);
      store_lanes(out + (i + 3) * step, _mm_unpackhi_epi64(c, d), lanes);
    }
  for (; i * From::kCols < padded; ++i)
    for (std::size_t l = 0; l < lanes; ++l)
      out[i * step + l] = i * From::kCols < cols ? From::one(rows[l], i, cols) : 0;
}

template <class From>
void prepare(const RowLayout& layout, const Operand& x, const std::uint32_t* rows,
             std::size_t first_group, std::size_t last_group, std::byte* data) {
  const auto source = [&](std::size_t row) {
    return static_cast<const typename From::Value*>(x.data) + picked(rows, row) * x.stride;
  };
  for (std::size_t k = 0; k < layout.padded_cols; k += kTileCols) {
    const std::size_t padded = std::min(kTileCols, layout.padded_cols - k);
    const std::size_t cols = std::min(padded, x.cols - std::min(x.cols, k));
    for (std::size_t g = first_group; g < last_group; ++g) {
      auto* out = reinterpret_cast<std::uint32_t*>(data + layout.offset(g, k));
      const std::size_t first = layout.first(g), step = layout.first(g + 1) - first;
      for (std::size_t lane = 0; lane < step; lane += 4) {
        const std::size_t lanes = std::min<std::size_t>(4, step - lane);
        const typename From::Value* in[4];
        for (std::size_t l = 0; l < 4; ++l)
          in[l] = source(first + lane + std::min(l, lanes - 1)) + k;
        interleave<From>(in, lanes, cols, padded, out + lane, step);
      }
    }
  }
}

void prepare_tiles(const RowLayout& layout, const Operand& x, const std::uint32_t* rows,
                   std::size_t first_group, std::size_t last_group, std::byte* data) {
  constexpr std::size_t kCols = RowLayout::kTileK;
  for (std::size_t g = first_group; g < last_group; ++g) {
    const std::size_t first = layout.first(g), count = layout.first(g + 1) - first;
    const Bf16* from[RowLayout::kTileRows];
    for (std::size_t i = 0; i < count; ++i) from[i] = x.bf16(picked(rows, first + i));
    for (std::size_t k = 0; k < layout.padded_cols; k += kCols) {
      std::byte* to = data + layout.tile_offset(first, k);
      const std::size_t cols = std::min(kCols, x.cols - std::min(x.cols, k));
      for (std::size_t i = 0; i < count; ++i, to += 64) {
        if (cols == kCols) {
          std::memcpy(to, from[i] + k, 64);
        } else {
          std::memset(to, 0, 64);
          std::memcpy(to, from[i] + k, cols * sizeof(Bf16));
        }
      }
    }
  }
}

/// Sums of 16 values each, in the low halves of both lanes.
__m128i sums16(const std::int8_t* q) {
  const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q));
  const __m128i raised = _mm_xor_si128(values, _mm_set1_epi8(static_cast<char>(0x80)));
  return _mm_sad_epu8(raised, _mm_setzero_si128());
}
std::int32_t total(__m128i halves) {
  return _mm_cvtsi128_si32(halves) + _mm_cvtsi128_si32(_mm_srli_si128(halves, 8));
}

/// Completes block `b` of a row whose values are in their place: scale, and sums if they are
/// wanted.
void finish_block(const RowLayout& layout, std::size_t row, std::size_t b, float scale,
                  std::byte* data) {
  const std::size_t ld = layout.padded_rows(), first = b * layout.block;
  reinterpret_cast<float*>(data + layout.scales_offset())[b * ld + row] = scale;
  if (!layout.with_sums) return;
  const auto* q = reinterpret_cast<const std::int8_t*>(data + layout.value_offset(row, first));
  auto* sums = reinterpret_cast<std::int32_t*>(data + layout.sums_offset());
  auto* sums64 = reinterpret_cast<std::int32_t*>(data + layout.sums64_offset());
  std::int32_t sum = 0;
  for (std::size_t k = 0; k < layout.block; k += 64, q += layout.chunk()) {
    __m128i parts[4], all = _mm_setzero_si128();
    for (std::size_t j = 0; j < 4; ++j) {
      parts[j] = sums16(q + 16 * j);
      all = _mm_add_epi32(all, parts[j]);
    }
    const std::int32_t part = total(all) - 64 * 128;
    sums64[(first + k) / 64 * ld + row] = part;
    sum += part;
    if (layout.rows > 1) continue;
    auto* out = reinterpret_cast<std::int32_t*>(data + layout.sums16_offset()) + (first + k) / 16;
    for (std::size_t j = 0; j < 4; ++j) out[j] = total(parts[j]) - 16 * 128;
  }
  sums[b * ld + row] = sum;
}

/// Puts the quantised rows of a tile, rows first .. of the layout, to their place.
void place_rows(const RowLayout& layout, const Operand& x, const std::uint32_t* rows,
                std::size_t first, std::size_t count, std::byte* data) {
  assert(x.block == layout.block && x.stride >= layout.padded_cols);
  const std::size_t blocks = layout.padded_cols / layout.block;
  const std::int8_t* from[RowLayout::kTileRows];
  for (std::size_t i = 0; i < count; ++i) from[i] = x.int8(picked(rows, first + i));
  std::byte* to = data + layout.value_offset(first, 0);
  for (std::size_t k = 0; k < layout.padded_cols; k += 64, to += layout.chunk())
    for (std::size_t i = 0; i < count; ++i) std::memcpy(to + i * 64, from[i] + k, 64);
  for (std::size_t i = 0; i < count; ++i) {
    const float* scales = x.scales + picked(rows, first + i) * blocks;
    for (std::size_t b = 0; b < blocks; ++b) finish_block(layout, first + i, b, scales[b], data);
  }
}

/// Quantises block `b` of a row to its place.
void quantize_to_place(const RowLayout& layout, std::size_t row, std::size_t b, const float* x,
                       std::size_t cols, std::byte* data) {
  std::byte* to = data + layout.value_offset(row, b * layout.block);
  const float scale =
      quantize_block(x, cols, layout.block, reinterpret_cast<std::int8_t*>(to), layout.chunk());
  finish_block(layout, row, b, scale, data);
}

/// Tiles take their padding rows along: no denormals there, which would slow them down.
void clear_padding(const RowLayout& layout, std::size_t b, std::byte* data) {
  auto* scales = reinterpret_cast<float*>(data + layout.scales_offset()) + b * layout.padded_rows();
  std::fill(scales + layout.rows, scales + layout.padded_rows(), 0.0F);
  if (!layout.with_sums) std::memset(data + layout.sums_offset(), 0, 64);
}

void prepare_integer(const RowLayout& layout, const Operand& x, const std::uint32_t* rows,
                     std::size_t first_group, std::size_t last_group, std::byte* data) {
  const std::size_t blocks = layout.padded_cols / layout.block;
  if (last_group == layout.groups)
    for (std::size_t b = 0; b < blocks; ++b) clear_padding(layout, b, data);
  if (x.compute == Compute::kInt) {
    for (std::size_t g = first_group; g < last_group; ++g)
      place_rows(layout, x, rows, layout.first(g), layout.first(g + 1) - layout.first(g), data);
    return;
  }
  thread_local AlignedVector<float> widened;
  widened.resize(x.cols);
  for (std::size_t row = layout.first(first_group); row < layout.first(last_group); ++row) {
    const float* values = f32_row(x, picked(rows, row), widened.data());
    for (std::size_t b = 0; b < blocks; ++b) {
      const std::size_t first = std::min(x.cols, b * layout.block);
      quantize_to_place(layout, row, b, values + first, std::min(layout.block, x.cols - first),
                        data);
    }
  }
}

}  // namespace

void prepare_rows(const RowLayout& layout, const Operand& x, const std::uint32_t* rows,
                  std::size_t first_group, std::size_t last_group, std::byte* data) {
  if (layout.block > 0) return prepare_integer(layout, x, rows, first_group, last_group, data);
  if (layout.tiles) return prepare_tiles(layout, x, rows, first_group, last_group, data);
  const auto run = layout.pairs                  ? prepare<FromBf16Pairs>
                   : x.compute == Compute::kBf16 ? prepare<FromBf16>
                                                 : prepare<FromF32>;
  run(layout, x, rows, first_group, last_group, data);
}

void prepare_block(const RowLayout& layout, std::size_t b, const float* x, std::size_t stride,
                   std::size_t cols, std::byte* data) {
  assert(layout.block > 0);
  clear_padding(layout, b, data);
  for (std::size_t row = 0; row < layout.rows; ++row, x += stride)
    quantize_to_place(layout, row, b, x, cols, data);
}

void store_prepared(const RowLayout& layout, std::size_t row, std::size_t first_col,
                    std::size_t count, const float* values, std::byte* data) {
  if (count == 0) return;
  if (layout.tiles) {
    for (std::size_t k = first_col; k < first_col + count; ++k) {
      const Bf16 value = bf16_bits(values[k - first_col]);
      std::memcpy(data + layout.tile_offset(row, k), &value, sizeof value);
    }
    return;
  }
  const std::size_t k0 = first_col / kTileCols * kTileCols;
  assert((first_col + count - 1) / kTileCols * kTileCols == k0);
  const std::size_t group = layout.group_of(row);
  const std::size_t first = layout.first(group), step = layout.first(group + 1) - first;
  std::byte* block = data + layout.offset(group, k0);
  const std::size_t lane = row - first;
  if (layout.pairs) {
    auto* out = reinterpret_cast<Bf16*>(block);
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t k = first_col + i - k0;
      out[(k / 2 * step + lane) * 2 + k % 2] = bf16_bits(values[i]);
    }
  } else {
    auto* out = reinterpret_cast<float*>(block) + (first_col - k0) * step + lane;
    for (std::size_t i = 0; i < count; ++i) out[i * step] = values[i];
  }
}

}  // namespace moesaic::cpu
