#pragma once

#include <cstddef>
#include <cstdint>

// Tiles. Own wrappers: in gcc 12 _tile_loadd has no memory clobber and _tile_loadconfig names 8 of
// the 64 bytes it reads, so that stores which fill a tile's memory or the configuration may be
// moved or dropped. Tile numbers are literals. A tile instruction without a configuration, or on
// tiles whose rows do not fit each other, is an illegal instruction.
#define MOESAIC_AMX                                                                               \
  [[gnu::target(                                                                                  \
      "amx-tile,amx-int8,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2," \
      "fma,f16c")]]
#define MOESAIC_AMX_INLINE MOESAIC_AMX [[gnu::always_inline]] inline
#define MOESAIC_AMX_LAMBDA                                                               \
  __attribute__((                                                                        \
      target("amx-tile,amx-int8,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni," \
             "avx512bf16,avx2,fma,f16c"),                                                \
      always_inline))
#define MOESAIC_TILE_LOAD(tile, address, stride)                                                 \
  asm volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(address), "r"(static_cast<long>(stride)) \
               : "memory")
/// The same of memory that will not be read again soon: it does not drive other data out of L1.
#define MOESAIC_TILE_STREAM(tile, address, stride)                                                 \
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm" #tile ::"r"(address), "r"(static_cast<long>(stride)) \
               : "memory")
#define MOESAIC_TILE_STORE(tile, address, stride)                     \
  asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(address), \
               "r"(static_cast<long>(stride))                         \
               : "memory")
#define MOESAIC_TILE_ZERO(tile) asm volatile("tilezero %%tmm" #tile ::)
/// Keeps tile instructions apart that have nothing to do between them. Where a hyper-thread beside
/// this one uses tiles, too, instructions on tiles that follow each other closely cost up to twice
/// the time of those that stand eight or more apart; elsewhere it is all the same.
#define MOESAIC_TILE_GAP() asm volatile(".rept 8\n\tnop\n\t.endr" ::)
/// c += a * b, `op` one of tdpbssd, tdpbusd, tdpbsud, tdpbf16ps (without quotes).
#define MOESAIC_TILE_DOT(op, c, a, b) asm volatile(#op " %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)

namespace moesaic::cpu {

struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};

/// All eight tiles 16 rows of 64 bytes on the calling thread while this lives; takes some 50 ns.
class WholeTiles {
 public:
  WholeTiles() {
    TileConfig config;
    for (int i = 0; i < 8; ++i) {
      config.row_bytes[i] = 64;
      config.rows[i] = 16;
    }
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  ~WholeTiles() { asm volatile("tilerelease" ::); }
  WholeTiles(const WholeTiles&) = delete;
  WholeTiles& operator=(const WholeTiles&) = delete;
};

}  // namespace moesaic::cpu
