#include "common/kernels/packed_matrix.hpp"

#include <emmintrin.h>

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <cstring>

#include "common/kernels/integer_weight.hpp"
#include "common/tensor/bf16.hpp"

namespace moesaic {
namespace {

constexpr std::size_t kHalfRows = 16;
constexpr std::size_t kBlockCols = 32;
constexpr std::size_t kHalfBytes = kHalfRows * kBlockCols * sizeof(Bf16);

/// Exact; denormals are normalised by the multiplication.
float f16_to_f32(std::uint16_t h) {
  const std::uint32_t sign = std::uint32_t{h & 0x8000u} << 16;
  const std::uint32_t exponent = h >> 10 & 0x1fu;
  const std::uint32_t mantissa = h & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
  }
  const std::uint32_t biased = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | biased << 23 | mantissa << 13);
}

template <class T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

/// Reads one stored element of a type.
template <DType>
struct Element;
template <>
struct Element<DType::kF32> {
  static float f32(const std::byte* p) { return load<float>(p); }
};
template <>
struct Element<DType::kBf16> {
  static float f32(const std::byte* p) { return bf16_to_f32(load<Bf16>(p)); }
};
template <>
struct Element<DType::kU16> : Element<DType::kBf16> {};
template <>
struct Element<DType::kF16> {
  static float f32(const std::byte* p) { return f16_to_f32(load<std::uint16_t>(p)); }
};
template <>
struct Element<DType::kI32> {
  static float f32(const std::byte* p) { return static_cast<float>(load<std::int32_t>(p)); }
};
template <>
struct Element<DType::kI64> {
  static float f32(const std::byte* p) { return static_cast<float>(load<std::int64_t>(p)); }
};
template <>
struct Element<DType::kU8> {
  static float f32(const std::byte* p) { return static_cast<float>(load<std::uint8_t>(p)); }
};
template <>
struct Element<DType::kI8> {
  static float f32(const std::byte* p) { return static_cast<float>(load<std::int8_t>(p)); }
};

/// Calls fn with Element<dtype>.
template <class F>
auto with_element(DType dtype, F&& fn) {
  switch (dtype) {
    case DType::kF32:
      return fn(Element<DType::kF32>{});
    case DType::kBf16:
    case DType::kU16:
      return fn(Element<DType::kBf16>{});
    case DType::kF16:
      return fn(Element<DType::kF16>{});
    case DType::kI32:
      return fn(Element<DType::kI32>{});
    case DType::kI64:
      return fn(Element<DType::kI64>{});
    case DType::kI8:
      return fn(Element<DType::kI8>{});
    case DType::kU8:
      break;
  }
  return fn(Element<DType::kU8>{});
}

bool holds_bf16(DType dtype) { return dtype == DType::kBf16 || dtype == DType::kU16; }

/// Up to sixteen consecutive rows of a view.
struct HalfSource {
  const std::byte* data = nullptr;
  DType dtype = DType::kBf16;
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::ptrdiff_t row_bytes = 0;
  std::ptrdiff_t col_bytes = 0;

  HalfSource(const MatrixView& w, std::size_t first_row) : dtype(w.dtype), cols(w.cols) {
    const auto size = static_cast<std::ptrdiff_t>(dtype_bytes(w.dtype));
    row_bytes = w.row_stride * size;
    col_bytes = w.col_stride * size;
    rows = first_row < w.rows ? std::min(kHalfRows, w.rows - first_row) : 0;
    if (rows > 0) data = w.data + static_cast<std::ptrdiff_t>(first_row) * row_bytes;
  }
  const std::byte* at(std::size_t row, std::size_t col) const {
    return data + static_cast<std::ptrdiff_t>(row) * row_bytes +
           static_cast<std::ptrdiff_t>(col) * col_bytes;
  }
};

std::size_t bf16_offset(std::size_t row, std::size_t k) {
  return k / kBlockCols * 2 * kHalfBytes + k % kBlockCols / 2 * 64 + row * 4 + k % 2 * 2;
}

/// Four rows by four pairs of k, transposed: 16 B of each row become a quarter of four lines.
void transpose_pairs(const std::byte* const rows[4], std::byte* line) {
  __m128i r[4];
  for (int i = 0; i < 4; ++i) r[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[i]));
  const __m128i a = _mm_unpacklo_epi32(r[0], r[1]);
  const __m128i b = _mm_unpacklo_epi32(r[2], r[3]);
  const __m128i c = _mm_unpackhi_epi32(r[0], r[1]);
  const __m128i d = _mm_unpackhi_epi32(r[2], r[3]);
  const auto store = [&](int i, __m128i v) {
    _mm_store_si128(reinterpret_cast<__m128i*>(line + i * 64), v);
  };
  store(0, _mm_unpacklo_epi64(a, b));
  store(1, _mm_unpackhi_epi64(a, b));
  store(2, _mm_unpacklo_epi64(c, d));
  store(3, _mm_unpackhi_epi64(c, d));
}

/// Sixteen rows, each contiguous along k.
void pack_half_along_k(const HalfSource& s, std::size_t blocks, std::byte* half) {
  for (std::size_t b = 0; b < blocks; ++b)
    for (std::size_t r = 0; r < kHalfRows; r += 4) {
      const std::byte* const first = s.at(r, b * kBlockCols);
      for (std::size_t p = 0; p < kBlockCols / 2; p += 4) {
        const std::byte* q = first + p * 4;
        const std::byte* const rows[4] = {q, q + s.row_bytes, q + 2 * s.row_bytes,
                                          q + 3 * s.row_bytes};
        transpose_pairs(rows, half + b * 2 * kHalfBytes + p * 64 + r * 4);
      }
    }
}

/// Sixteen rows, neighbours in memory (a stored transpose): two columns interleave into a line.
void pack_half_along_rows(const HalfSource& s, std::size_t blocks, std::byte* half) {
  for (std::size_t k = 0; k < blocks * kBlockCols; k += 2) {
    const auto* even = reinterpret_cast<const __m128i*>(s.at(0, k));
    const auto* odd = reinterpret_cast<const __m128i*>(s.at(0, k + 1));
    auto* line = reinterpret_cast<__m128i*>(half + bf16_offset(0, k));
    for (int i = 0; i < 2; ++i) {
      const __m128i e = _mm_loadu_si128(even + i);
      const __m128i o = _mm_loadu_si128(odd + i);
      _mm_store_si128(line + 2 * i, _mm_unpacklo_epi16(e, o));
      _mm_store_si128(line + 2 * i + 1, _mm_unpackhi_epi16(e, o));
    }
  }
}

/// @param half first byte of the half in its panel; its 1 KiB blocks lie 2 KiB apart
void pack_half_bf16(const HalfSource& s, std::byte* half) {
  std::size_t k0 = 0;
  if (holds_bf16(s.dtype) && s.rows == kHalfRows) {
    const std::size_t blocks = s.cols / kBlockCols;
    if (s.col_bytes == sizeof(Bf16)) {
      pack_half_along_k(s, blocks, half);
      k0 = blocks * kBlockCols;
    } else if (s.row_bytes == sizeof(Bf16)) {
      pack_half_along_rows(s, blocks, half);
      k0 = blocks * kBlockCols;
    }
  }
  const auto each = [&](auto value) {
    for (std::size_t k = k0; k < s.cols; ++k)
      for (std::size_t r = 0; r < s.rows; ++r) {
        const Bf16 x = value(s.at(r, k));
        std::memcpy(half + bf16_offset(r, k), &x, sizeof x);
      }
  };
  if (holds_bf16(s.dtype)) {
    each([](const std::byte* p) { return load<Bf16>(p); });
  } else {
    with_element(s.dtype, [&](auto element) {
      each([](const std::byte* p) { return f32_to_bf16(decltype(element)::f32(p)); });
    });
  }
}

/// @param half the half's first value of k = 0; values of one k lie 32 apart
void pack_half_f32(const HalfSource& s, float* half) {
  with_element(s.dtype, [&](auto element) {
    for (std::size_t k = 0; k < s.cols; ++k)
      for (std::size_t r = 0; r < s.rows; ++r)
        half[k * 2 * kHalfRows + r] = decltype(element)::f32(s.at(r, k));
  });
}

PackedMatrix pack(const MatrixView& w, const MatrixView* up, Compute compute) {
  PackedMatrix packed;
  const bool bf16 = holds_bf16(w.dtype) && (up == nullptr || holds_bf16(up->dtype));
  packed.format = bf16 || compute != Compute::kF32 ? WeightFormat::kBf16 : WeightFormat::kF32;
  packed.rows = w.rows;
  packed.cols = w.cols;
  packed.gate_up = up != nullptr;
  auto buffer = std::make_shared<AlignedBuffer>(packed.bytes());
  for (std::size_t p = 0; p < packed.panels(); ++p)
    for (std::size_t h = 0; h < 2; ++h) {
      const auto source = up != nullptr ? HalfSource(h == 0 ? w : *up, p * kHalfRows)
                                        : HalfSource(w, (p * 2 + h) * kHalfRows);
      if (source.rows == 0) continue;
      std::byte* panel = buffer->data() + p * packed.panel_bytes();
      if (packed.format == WeightFormat::kBf16) {
        pack_half_bf16(source, panel + h * kHalfBytes);
      } else {
        pack_half_f32(source, reinterpret_cast<float*>(panel) + h * kHalfRows);
      }
    }
  packed.data = buffer->data();
  packed.owner = std::move(buffer);
  return packed;
}

}  // namespace

PackedMatrix pack_matrix(const MatrixView& w, Compute compute) { return pack(w, nullptr, compute); }

PackedMatrix pack_gate_up(const MatrixView& gate, const MatrixView& up, Compute compute) {
  assert(gate.rows == up.rows && gate.cols == up.cols);
  return pack(gate, &up, compute);
}

float element_f32(const MatrixView& w, std::size_t row, std::size_t col) {
  const auto offset = static_cast<std::ptrdiff_t>(row) * w.row_stride +
                      static_cast<std::ptrdiff_t>(col) * w.col_stride;
  const std::byte* p = w.data + offset * static_cast<std::ptrdiff_t>(dtype_bytes(w.dtype));
  return with_element(w.dtype, [p](auto element) { return decltype(element)::f32(p); });
}

void unpack_row(const PackedMatrix& w, std::size_t row, float* out) {
  assert(!w.gate_up && row < w.rows);
  const std::byte* panel = w.data + row / 32 * w.panel_bytes();
  const std::size_t r = row % 32;
  if (is_integer(w.format)) {
    const float scale = row_scale(w, row / 32, r);
    for (std::size_t k = 0; k < w.cols; ++k)
      out[k] = round_to_bf16(static_cast<float>(integer_weight(w, row / 32, r, k)) * scale);
    return;
  }
  if (w.format == WeightFormat::kF32) {
    const auto* values = reinterpret_cast<const float*>(panel) + r;
    for (std::size_t k = 0; k < w.cols; ++k) out[k] = values[k * 32];
    return;
  }
  const std::byte* half = panel + r / kHalfRows * kHalfBytes;
  for (std::size_t k = 0; k < w.cols; ++k)
    out[k] = bf16_to_f32(load<Bf16>(half + bf16_offset(r % kHalfRows, k)));
}

}  // namespace moesaic
