#include "common/transport/crc32c.hpp"

#include <nmmintrin.h>

#include <array>
#include <cstring>

#include "common/transport/wire.hpp"

namespace moesaic::transport {
namespace {

constexpr std::uint32_t kPolynomial = 0x82f63b78;  // Castagnoli, bits reversed

using Table = std::array<std::uint32_t, 256>;

constexpr Table make_byte_table() {
  Table table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    table[i] = crc;
  }
  return table;
}
constexpr Table kByteTable = make_byte_table();

/// A linear map of 32 bits: where each bit goes.
using Map = std::array<std::uint32_t, 32>;

constexpr std::uint32_t mapped(const Map& map, std::uint32_t bits) {
  std::uint32_t out = 0;
  for (std::size_t i = 0; bits != 0; bits >>= 1, ++i)
    if ((bits & 1) != 0) out ^= map[i];
  return out;
}

/// What `bytes` (a power of two) zero bytes do to a checksum, as a table per byte of it.
constexpr std::array<Table, 4> make_shift(std::size_t bytes) {
  Map map{};  // one zero byte
  for (std::size_t i = 0; i < 32; ++i) {
    const std::uint32_t crc = std::uint32_t{1} << i;
    map[i] = kByteTable[crc & 0xff] ^ (crc >> 8);
  }
  for (; bytes > 1; bytes /= 2) {
    Map twice{};
    for (std::size_t i = 0; i < 32; ++i) twice[i] = mapped(map, map[i]);
    map = twice;
  }
  std::array<Table, 4> tables{};
  for (std::size_t byte = 0; byte < 4; ++byte)
    for (std::uint32_t value = 0; value < 256; ++value)
      tables[byte][value] = mapped(map, value << (8 * byte));
  return tables;
}

constexpr std::size_t kLong = 1024;
constexpr std::size_t kShort = 128;
constexpr auto kShiftLong = make_shift(kLong);
constexpr auto kShiftShort = make_shift(kShort);

std::uint64_t shift(const std::array<Table, 4>& tables, std::uint64_t crc) {
  return tables[0][crc & 0xff] ^ tables[1][(crc >> 8) & 0xff] ^ tables[2][(crc >> 16) & 0xff] ^
         tables[3][(crc >> 24) & 0xff];
}

std::uint64_t load(const std::byte* from) {
  std::uint64_t word = 0;
  std::memcpy(&word, from, sizeof word);
  return word;
}

/// Three neighbouring blocks at once: the instruction takes one cycle to issue, three to finish.
template <std::size_t kBlock>
[[gnu::target("sse4.2")]] std::uint64_t three_blocks(const std::byte* from, std::uint64_t crc,
                                                     const std::array<Table, 4>& tables) {
  std::uint64_t second = 0;
  std::uint64_t third = 0;
  for (std::size_t i = 0; i < kBlock; i += 8) {
    crc = _mm_crc32_u64(crc, load(from + i));
    second = _mm_crc32_u64(second, load(from + kBlock + i));
    third = _mm_crc32_u64(third, load(from + 2 * kBlock + i));
  }
  return shift(tables, shift(tables, crc) ^ second) ^ third;
}

}  // namespace

std::uint32_t crc32c_table(std::span<const std::byte> bytes, std::uint32_t crc) {
  crc = ~crc;
  for (const auto byte : bytes)
    crc = kByteTable[(crc ^ std::to_integer<std::uint32_t>(byte)) & 0xff] ^ (crc >> 8);
  return ~crc;
}

[[gnu::target("sse4.2")]] std::uint32_t crc32c_sse42(std::span<const std::byte> bytes,
                                                     std::uint32_t crc) {
  std::uint64_t sum = static_cast<std::uint32_t>(~crc);
  const auto* at = bytes.data();
  auto left = bytes.size();
  for (; left >= 3 * kLong; at += 3 * kLong, left -= 3 * kLong)
    sum = three_blocks<kLong>(at, sum, kShiftLong);
  for (; left >= 3 * kShort; at += 3 * kShort, left -= 3 * kShort)
    sum = three_blocks<kShort>(at, sum, kShiftShort);
  for (; left >= 8; at += 8, left -= 8) sum = _mm_crc32_u64(sum, load(at));
  auto tail = static_cast<std::uint32_t>(sum);
  for (; left > 0; ++at, --left) tail = _mm_crc32_u8(tail, std::to_integer<std::uint8_t>(*at));
  return ~tail;
}

bool crc32c_has_instruction() { return __builtin_cpu_supports("sse4.2") != 0; }

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t crc) {
  static const auto best = crc32c_has_vpclmul()       ? crc32c_vpclmul
                           : crc32c_has_instruction() ? crc32c_sse42
                                                      : crc32c_table;
  return best(bytes, crc);
}

}  // namespace moesaic::transport
