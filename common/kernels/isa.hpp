#pragma once

#include <string_view>
#include <vector>

#include "common/base/result.hpp"

namespace moesaic {

/// Instruction-set levels, weakest first. `kAvx512` needs F, BW, DQ, VL and VNNI. `kAvx512Bf16` and
/// `kAmx` exclude each other: the former is offered only where AVX512_BF16 is present and AMX is
/// not; the latter where the system lets the process use tiles, too.
enum class Isa : unsigned char { kScalar, kAvx2, kAvx512, kAvx512Bf16, kAmx };

/// "scalar", "avx2", "avx512", "avx512bf16", "amx".
std::string_view isa_name(Isa isa);

/// The levels this build has and this CPU (CPUID, XGETBV) can run, weakest first; never empty. The
/// first call asks the system for tiles, for threads made from then on.
const std::vector<Isa>& available_isas();

/// Chooses the level for the life of the process; call once in main before any kernel or thread.
/// MOESAIC_ISA=<name> forces one; otherwise the best level whose bf16 sums are portable
/// (ops/decisions/0002-numerics.md), so never kAvx512Bf16 by itself.
/// @errors kInvalidArgument: unknown or unavailable name; the text lists what is available
[[nodiscard]] Result<Isa> choose_isa();

/// The chosen level; without `choose_isa` its default (an invalid MOESAIC_ISA then means scalar).
Isa active_isa();

}  // namespace moesaic
