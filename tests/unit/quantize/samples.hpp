#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/kernels/integer_weight.hpp"
#include "common/kernels/packed_matrix.hpp"
#include "common/tensor/bf16.hpp"
#include "common/tensor/view.hpp"

namespace moesaic {

inline constexpr WeightFormat kFormats[] = {WeightFormat::kW8r, WeightFormat::kW4r,
                                            WeightFormat::kCcq2, WeightFormat::kCcq25,
                                            WeightFormat::kCcq275};

/// Uniform in (0, 1), the same on every machine.
class Draws {
 public:
  explicit Draws(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15U + 1) {}
  double uniform() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return (static_cast<double>(state_ >> 11) + 0.5) * 0x1p-53;
  }
  double gaussian() {
    const double radius = std::sqrt(-2 * std::log(uniform()));
    return radius * std::cos(6.283185307179586 * uniform());
  }
  double laplace() {
    const double u = uniform() - 0.5;
    return (u < 0 ? 1 : -1) * std::log(1 - 2 * std::fabs(u)) / std::sqrt(2.0);
  }
  double student(int dof) {
    double chi = 0;
    for (int i = 0; i < dof; ++i) {
      const double g = gaussian();
      chi += g * g;
    }
    return gaussian() / std::sqrt(chi / dof);
  }

 private:
  std::uint64_t state_;
};

inline std::vector<float> gaussian_weights(std::size_t n, std::uint64_t seed, double sigma = 0.02) {
  Draws draws(seed);
  std::vector<float> values(n);
  for (auto& v : values) v = static_cast<float>(sigma * draws.gaussian());
  return values;
}

inline MatrixView view_of(const std::vector<float>& w, std::size_t rows, std::size_t cols) {
  return {reinterpret_cast<const std::byte*>(w.data()),
          DType::kF32,
          rows,
          cols,
          static_cast<std::ptrdiff_t>(cols),
          1};
}

/// Signal to noise, dB.
inline double snr_db(const std::vector<float>& w, const std::vector<float>& q) {
  double signal = 0;
  double noise = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const double d = double{w[i]} - double{q[i]};
    signal += double{w[i]} * double{w[i]};
    noise += d * d;
  }
  return 10 * std::log10(signal / noise);
}

/// What a packed matrix stands for, [rows][cols] (gate rows, then up rows).
inline std::vector<float> weights_of(const PackedMatrix& p) {
  const std::size_t parts = p.gate_up ? 2 : 1;
  std::vector<float> out(parts * p.rows * p.cols);
  for (std::size_t part = 0; part < parts; ++part)
    for (std::size_t r = 0; r < p.rows; ++r) {
      const std::size_t panel = p.gate_up ? r / 16 : r / 32;
      const std::size_t row = p.gate_up ? part * 16 + r % 16 : r % 32;
      const float scale = row_scale(p, panel, row);
      for (std::size_t k = 0; k < p.cols; ++k)
        out[(part * p.rows + r) * p.cols + k] =
            static_cast<float>(integer_weight(p, panel, row, k)) * scale;
    }
  return out;
}

}  // namespace moesaic
