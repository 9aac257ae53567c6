#pragma once

#include <cstdint>
#include <string>

#include "common/model/config.hpp"

namespace moesaic {

/// Bytes that calibrated quantisation has in memory at once. Of the checkpoint's own pages at most
/// a layer is mapped besides, which the system takes back when it needs them.
struct CalibrationMemory {
  std::uint64_t rows = 0;    ///< what the rows are between layers, and what they feed one layer
  std::uint64_t vision = 0;  ///< the tower, while pictures are encoded
  std::uint64_t layer = 0;   ///< the largest layer in bf16, its keys and values, one step
  std::uint64_t matrix = 0;  ///< moments and factor of the widest matrix, its weights and codes

  std::uint64_t peak() const;
};

/// @param tokens  of all conversations   @param longest of one
/// @param pictures whether there are any
CalibrationMemory calibration_memory(const ModelConfig& config, std::uint64_t tokens,
                                     std::uint64_t longest, bool pictures);

/// One line for people: the parts and the peak.
std::string to_text(const CalibrationMemory& memory);

}  // namespace moesaic
