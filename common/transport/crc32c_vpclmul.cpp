#include <immintrin.h>

#include "common/transport/crc32c.hpp"

// Folding: bytes R in front of D bits of message may be replaced by R * x^D mod P on top of the
// bytes that follow. Bits are reflected throughout: the lowest bit of a word is the highest power.
// @source Gopal et al. 2009, Fast CRC Computation for Generic Polynomials Using PCLMULQDQ

namespace moesaic::transport {
namespace {

constexpr std::uint32_t kPolynomial = 0x82f63b78;

/// x^n mod P as the carry-less multiplication wants it.
constexpr std::uint64_t power(unsigned n) {
  std::uint32_t value = 0x80000000;  // x^0
  for (; n > 0; --n) value = (value >> 1) ^ ((value & 1) != 0 ? kPolynomial : 0);
  return std::uint64_t{value} << 32;
}

/// The factors of the low (earlier) and the high word of 16 bytes that move D bits on. The product
/// of two reflected words comes out one bit short: hence the - 1.
template <unsigned kBits>
constexpr std::uint64_t kLow = power(kBits + 64 - 1);
template <unsigned kBits>
constexpr std::uint64_t kHigh = power(kBits - 1);

#define MOESAIC_VPCLMUL [[gnu::target("avx512f,vpclmulqdq,pclmul,sse4.2")]]

template <unsigned kBits>
MOESAIC_VPCLMUL inline __m512i fold(__m512i sum, __m512i next) {
  const auto factors =
      _mm512_set_epi64(static_cast<long long>(kHigh<kBits>), static_cast<long long>(kLow<kBits>),
                       static_cast<long long>(kHigh<kBits>), static_cast<long long>(kLow<kBits>),
                       static_cast<long long>(kHigh<kBits>), static_cast<long long>(kLow<kBits>),
                       static_cast<long long>(kHigh<kBits>), static_cast<long long>(kLow<kBits>));
  constexpr int kXorOfThree = 0x96;
  return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(sum, factors, 0x00),
                                   _mm512_clmulepi64_epi128(sum, factors, 0x11), next, kXorOfThree);
}

template <unsigned kBits>
MOESAIC_VPCLMUL inline __m128i moved(__m128i sum) {
  const auto factors =
      _mm_set_epi64x(static_cast<long long>(kHigh<kBits>), static_cast<long long>(kLow<kBits>));
  return _mm_xor_si128(_mm_clmulepi64_si128(sum, factors, 0x00),
                       _mm_clmulepi64_si128(sum, factors, 0x11));
}

constexpr std::size_t kLane = 64;
constexpr std::size_t kLeast = 4 * kLane;  // below, the plain instruction is as fast

MOESAIC_VPCLMUL inline __m512i load(const std::byte* from, std::size_t lane) {
  return _mm512_loadu_si512(from + lane * kLane);
}

}  // namespace

MOESAIC_VPCLMUL std::uint32_t crc32c_vpclmul(std::span<const std::byte> bytes, std::uint32_t crc) {
  if (bytes.size() < kLeast) return crc32c_sse42(bytes, crc);
  const auto* at = bytes.data();
  auto left = bytes.size();
  // The checksum so far acts like a change of the first four bytes.
  const auto start = _mm512_zextsi128_si512(_mm_cvtsi32_si128(static_cast<int>(~crc)));
  auto a = _mm512_xor_si512(load(at, 0), start);
  auto b = load(at, 1);
  auto c = load(at, 2);
  auto d = load(at, 3);
  at += kLeast;
  left -= kLeast;
  for (; left >= kLeast; at += kLeast, left -= kLeast) {
    a = fold<4 * 512>(a, load(at, 0));
    b = fold<4 * 512>(b, load(at, 1));
    c = fold<4 * 512>(c, load(at, 2));
    d = fold<4 * 512>(d, load(at, 3));
  }
  auto sum = fold<512>(fold<512>(fold<512>(a, b), c), d);
  for (; left >= kLane; at += kLane, left -= kLane) sum = fold<512>(sum, load(at, 0));
  alignas(kLane) __m128i lanes[4];
  _mm512_store_si512(lanes, sum);
  const auto last = _mm_xor_si128(_mm_xor_si128(moved<384>(lanes[0]), moved<256>(lanes[1])),
                                  _mm_xor_si128(moved<128>(lanes[2]), lanes[3]));
  auto rest = _mm_crc32_u64(0, static_cast<std::uint64_t>(_mm_extract_epi64(last, 0)));
  rest = _mm_crc32_u64(rest, static_cast<std::uint64_t>(_mm_extract_epi64(last, 1)));
  return crc32c_sse42({at, left}, ~static_cast<std::uint32_t>(rest));
}

bool crc32c_has_vpclmul() {
  return crc32c_has_instruction() && __builtin_cpu_supports("avx512f") != 0 &&
         __builtin_cpu_supports("vpclmulqdq") != 0 && __builtin_cpu_supports("pclmul") != 0;
}

}  // namespace moesaic::transport
