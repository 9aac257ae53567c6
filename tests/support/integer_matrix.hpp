#pragma once

#include <cstring>
#include <memory>

#include "common/base/aligned_buffer.hpp"
#include "common/kernels/packed_matrix.hpp"

namespace moesaic::test {

/// A matrix of an integer format from pseudo-random bytes, its padding included: no kernel may be
/// told about an encoder's habits. Row scales are positive, CCQ constants those of profile C.
inline PackedMatrix random_integer_matrix(WeightFormat format, std::size_t rows, std::size_t cols,
                                          std::uint64_t seed, bool gate_up = false) {
  PackedMatrix w;
  w.format = format;
  w.rows = rows;
  w.cols = cols;
  w.gate_up = gate_up;
  // Kernels prefetch, but never read, beyond the end.
  auto memory = std::make_shared<AlignedBuffer>(w.bytes());
  std::uint64_t state = seed;
  const auto next = [&state] {
    state = state * 6364136223846793005U + 1442695040888963407U;
    return static_cast<std::uint32_t>(state >> 33);
  };
  for (auto& b : memory->as<std::uint8_t>()) b = static_cast<std::uint8_t>(next());
  for (std::size_t p = 0; p < w.panels(); ++p) {
    std::byte* panel = memory->data() + p * w.panel_bytes();
    for (std::size_t r = 0; r < 32; ++r) {
      const float scale = 1e-4F * static_cast<float>(1 + next() % 1000);
      std::memcpy(panel + 4 * r, &scale, 4);
      if (format != WeightFormat::kCcq2) continue;
      const float code_scale = static_cast<float>(118 + next() % 8) + (r % 5 == 0 ? 0.498F : 0.0F);
      const float code_zp = static_cast<float>(next() % 1000) - (r % 7 == 0 ? 3.25F : 0.0F);
      std::memcpy(panel + 128 + 4 * r, &code_scale, 4);
      std::memcpy(panel + 256 + 4 * r, &code_zp, 4);
    }
    if (format == WeightFormat::kW8r) {
      for (std::size_t i = 128; i < w.panel_bytes(); ++i)
        if (panel[i] == std::byte{0x80}) panel[i] = std::byte{0x81};  // -128 does not occur
    }
    if (format == WeightFormat::kCcq2) {
      for (std::size_t b = 384; b < w.panel_bytes(); b += 1088)
        for (std::size_t i = 0; i < 64; ++i) panel[b + i] &= std::byte{15};
    }
  }
  w.data = memory->data();
  w.owner = std::move(memory);
  return w;
}

}  // namespace moesaic::test
