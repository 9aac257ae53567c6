#pragma once

#include <cstddef>
#include <cstdint>

#include "common/kernels/isa.hpp"

namespace moesaic {

/// Rows that the searches treat side by side: half a panel. Values of one k are 16 neighbours.
inline constexpr std::size_t kLanes = 16;

/// Candidates of a word, as a kernel reads them: those of a Codebook, or transformed ones.
struct Candidates {
  std::size_t weights = 0;        ///< 1..4
  std::size_t words = 0;          ///< a multiple of 4, at most 512
  const float* values = nullptr;  ///< [words][4]
  const float* norms = nullptr;   ///< [words]
};

/// The inner loops of the encoders for one instruction set. All compute the same bits: each lane
/// does the same IEEE operations in the same order, nothing is fused. Pointers to lanes are
/// 64-byte aligned.
struct LaneKernels {
  /// For each step s: errors[s] += min over candidates c of |x - steps[s] c|^2 - |x|^2.
  /// @param x [weights][lanes]   @param steps, errors [count][lanes], count a multiple of 4
  void (*word_errors)(const float* x, const Candidates& candidates, const float* steps,
                      std::size_t count, float* errors);

  /// The nearest candidate at one step per lane, the first of equals; 0 where the step is 0.
  void (*choose_word)(const float* x, const Candidates& candidates, const float* step,
                      std::int32_t* index);

  /// c[k] += sum over j < rows of r[j][k] * e[j], k < 64, j ascending.
  /// @param c [64][lanes]   @param r rows `stride` apart   @param e [rows][lanes]
  void (*accumulate)(float* c, const float* r, std::size_t stride, const float* e,
                     std::size_t rows);

  /// Rounds `count` columns in turn and hands each error on to those that follow:
  ///   t = w[k] + c[k] * inverse_diagonal[k];  q[k] = round(clamp(t * inverse_step, low, high))
  ///   e[k] = w[k] - q[k] * step;              c[i] += r[k][i] * e[k]  for k < i < rest
  /// @param w, c, e [rest][lanes]   @param q [count][lanes] integers   @param r [count][stride]
  void (*sweep)(const float* w, float* c, const float* r, std::size_t stride,
                const float* inverse_diagonal, std::size_t count, std::size_t rest,
                const float* step, const float* inverse_step, float low, float high, float* q,
                float* e);

  /// The multiplier 0..15 of a group of 16 that leaves the least sum of
  /// (weight[k] * (t[k] - code * mult * scale))^2, codes -8..7; t[k] = w[k] + c[k] *
  /// inverse_diagonal[k].
  /// @param mult, error [lanes]; error: that sum
  void (*best_mult)(const float* w, const float* c, const float* inverse_diagonal,
                    const float* weight, const float* scale, float* mult, float* error);
};

const LaneKernels& lane_kernels_for(Isa isa);

}  // namespace moesaic
