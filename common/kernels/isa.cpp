#include "common/kernels/isa.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace moesaic {
namespace {

constexpr std::array kNames = {std::string_view("scalar"), std::string_view("avx2"),
                               std::string_view("avx512"), std::string_view("avx512bf16"),
                               std::string_view("amx")};

struct CpuFeatures {
  bool avx2 = false;    // with FMA and F16C, ymm state saved by the system
  bool avx512 = false;  // F, BW, DQ, VL, VNNI, zmm state saved by the system
  bool avx512_bf16 = false;
  bool amx = false;    // tile, int8 and bf16 exist, whether or not the system grants them
  bool tiles = false;  // and it does
};

#if defined(__x86_64__)
struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d) == 0) return {};
  return r;
}

std::uint64_t saved_state() {
  unsigned low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (std::uint64_t{high} << 32) | low;
}

/// Asks the system to let this process use tiles. Kernels that know nothing of them refuse.
bool may_use_tiles() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // of arch_prctl
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

constexpr bool bit(unsigned reg, int index) { return (reg >> index & 1u) != 0; }

CpuFeatures detect() {
  CpuFeatures f;
  const auto one = cpuid(1, 0);
  const bool osxsave = bit(one.c, 27);
  if (!osxsave || !bit(one.c, 28)) return f;
  const auto state = saved_state();
  const bool ymm = (state & 0x6) == 0x6;
  const bool zmm = (state & 0xe6) == 0xe6;
  const auto seven = cpuid(7, 0);
  const auto seven_one = seven.a >= 1 ? cpuid(7, 1) : Registers{};
  f.avx2 = ymm && bit(seven.b, 5) && bit(one.c, 12) && bit(one.c, 29);
  f.avx512 = f.avx2 && zmm && bit(seven.b, 16) && bit(seven.b, 17) && bit(seven.b, 30) &&
             bit(seven.b, 31) && bit(seven.c, 11);
  f.avx512_bf16 = f.avx512 && bit(seven_one.a, 5);
  f.amx = bit(seven.d, 22) && bit(seven.d, 24) && bit(seven.d, 25);
  const bool tile_state = (state & 0x60000) == 0x60000;
  f.tiles = f.amx && f.avx512_bf16 && tile_state && may_use_tiles();
  return f;
}
#else
CpuFeatures detect() { return {}; }
#endif

std::vector<Isa> find_available() {
  const auto f = detect();
  std::vector<Isa> levels = {Isa::kScalar};
  if (f.avx2) levels.push_back(Isa::kAvx2);
  if (f.avx512) levels.push_back(Isa::kAvx512);
  // Where AMX exists vdpbf16ps runs at half of the FMA rate: that level is for other CPUs.
  if (f.avx512_bf16 && !f.amx) levels.push_back(Isa::kAvx512Bf16);
  if (f.tiles) levels.push_back(Isa::kAmx);
  return levels;
}

Isa best_portable() {
  const auto& levels = available_isas();
  Isa best = Isa::kScalar;
  for (const auto isa : levels)
    if (isa != Isa::kAvx512Bf16) best = isa;
  return best;
}

Result<Isa> parse_forced(std::string_view name) {
  std::string list;
  for (const auto isa : available_isas()) {
    if (isa_name(isa) == name) return isa;
    list += (list.empty() ? "" : ", ") + std::string(isa_name(isa));
  }
  return fail(Errc::kInvalidArgument, "MOESAIC_ISA: \"" + std::string(name) +
                                          "\" is not available; this CPU and build have: " + list);
}

constexpr int kUnset = -1;
std::atomic<int> chosen{kUnset};

}  // namespace

std::string_view isa_name(Isa isa) { return kNames[static_cast<std::size_t>(isa)]; }

const std::vector<Isa>& available_isas() {
  static const std::vector<Isa> levels = find_available();
  return levels;
}

Result<Isa> choose_isa() {
  const char* forced = std::getenv("MOESAIC_ISA");
  const bool given = forced != nullptr && *forced != '\0';
  MOESAIC_TRY(const Isa isa, given ? parse_forced(forced) : Result<Isa>(best_portable()));
  chosen.store(static_cast<int>(isa), std::memory_order_release);
  return isa;
}

Isa active_isa() {
  const int isa = chosen.load(std::memory_order_acquire);
  if (isa != kUnset) return static_cast<Isa>(isa);
  if (const auto fresh = choose_isa()) return *fresh;
  chosen.store(static_cast<int>(Isa::kScalar), std::memory_order_release);
  return Isa::kScalar;
}

}  // namespace moesaic
