#pragma once

#include <map>
#include <string>
#include <vector>

#include "common/tensor/view.hpp"

namespace moesaic::test {

using Tensors = std::map<std::string, Tensor>;

/// A golden case: reads tests/golden/<model>/cases/<name>.safetensors.
Tensors read_golden(const std::string& model, const std::string& name);

/// Names of all cases of "tiny" or "wide2".
std::vector<std::string> golden_cases(const std::string& model);

/// The case's inputs alone; with `placeholder` >= 0 the ids of video placeholders become that one
/// (the original layout has no own).
Tensors case_inputs(const Tensors& golden, std::int32_t placeholder);

/// Everything in which `got` is not what the case says, within the tolerances of the golden data:
/// f32 engine |a - b| <= 5e-5 + 1e-4 |b| (logits 2e-5), expert sets where the margin exceeds 1e-5,
/// ids, positions and types exact. Empty: all right.
/// @param compared out: number of tensors compared
std::vector<std::string> differences(const Tensors& golden, const Tensors& got,
                                     std::size_t& compared);

/// How far a pass in fewer bits may be off, as the relative rms of a row.
struct Noise {
  double vision = 0;   ///< output of the vision tower and of the resampler
  double decoder = 0;  ///< decoder rows
  float margin = 0;    ///< only where it is at most this large may other experts be chosen
};

/// The same for a pass with noise, row by row, up to the first row whose experts differ from the
/// golden ones.
std::vector<std::string> noisy_differences(const Tensors& golden, const Tensors& got,
                                           const Noise& noise, std::size_t& compared_rows);

}  // namespace moesaic::test
