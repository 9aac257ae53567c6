#include "common/quantize/lane_kernels.hpp"

#include <limits>

#include "common/kernels/cpu/targets.hpp"

// Bodies are written once, on vectors of a width that the level has registers for, and inlined into
// a function for each level. Vectors never pass between functions: that would depend on the target.
#define MOESAIC_BODY [[gnu::always_inline]] inline

namespace moesaic {
namespace {

// NOLINTBEGIN(modernize-use-using): the attributes belong to the types
template <std::size_t kBytes>
struct Vectors {
  typedef float Lanes __attribute__((vector_size(kBytes), may_alias));
  typedef std::int32_t Ints __attribute__((vector_size(kBytes), may_alias));
};
// NOLINTEND(modernize-use-using)

constexpr std::size_t kMostWords = 512;
/// Adding and taking it away leaves the nearest integer, ties to even, of |x| < 2^22.
constexpr float kRounder = 12582912.0F;

/// Some of the sixteen lanes: pointers stand at the first of them.
template <std::size_t kBytes>
struct Bodies {
  using Lanes = typename Vectors<kBytes>::Lanes;
  using Ints = typename Vectors<kBytes>::Ints;

  MOESAIC_BODY static const Lanes& lanes(const float* p) {
    return *reinterpret_cast<const Lanes*>(p);
  }
  MOESAIC_BODY static Lanes& lanes(float* p) { return *reinterpret_cast<Lanes*>(p); }

  /// -2 x . c of every candidate.
  template <std::size_t kWeights>
  MOESAIC_BODY static void products(const float* x, const Candidates& set, Lanes* out) {
    Lanes twice[kWeights];
    for (std::size_t j = 0; j < kWeights; ++j) twice[j] = lanes(x + j * kLanes) * -2.0F;
    for (std::size_t b = 0; b < set.words; ++b) {
      const float* c = set.values + 4 * b;
      Lanes sum = twice[0] * c[0];
      for (std::size_t j = 1; j < kWeights; ++j) sum += twice[j] * c[j];
      out[b] = sum;
    }
  }

  MOESAIC_BODY static void all_products(const float* x, const Candidates& set, Lanes* out) {
    switch (set.weights) {
      case 1:
        return products<1>(x, set, out);
      case 2:
        return products<2>(x, set, out);
      case 3:
        return products<3>(x, set, out);
      default:
        return products<4>(x, set, out);
    }
  }

  MOESAIC_BODY static void word_errors(const float* x, const Candidates& set, const float* steps,
                                       std::size_t count, float* errors) {
    Lanes product[kMostWords];
    all_products(x, set, product);
    for (std::size_t s = 0; s < count; s += 4) {
      const Lanes d0 = lanes(steps + s * kLanes);
      const Lanes d1 = lanes(steps + (s + 1) * kLanes);
      const Lanes d2 = lanes(steps + (s + 2) * kLanes);
      const Lanes d3 = lanes(steps + (s + 3) * kLanes);
      Lanes least0 = d0 * set.norms[0] + product[0];
      Lanes least1 = d1 * set.norms[0] + product[0];
      Lanes least2 = d2 * set.norms[0] + product[0];
      Lanes least3 = d3 * set.norms[0] + product[0];
      for (std::size_t b = 1; b < set.words; ++b) {
        const float norm = set.norms[b];
        const Lanes p = product[b];
        const Lanes e0 = d0 * norm + p;
        const Lanes e1 = d1 * norm + p;
        const Lanes e2 = d2 * norm + p;
        const Lanes e3 = d3 * norm + p;
        least0 = e0 < least0 ? e0 : least0;
        least1 = e1 < least1 ? e1 : least1;
        least2 = e2 < least2 ? e2 : least2;
        least3 = e3 < least3 ? e3 : least3;
      }
      lanes(errors + s * kLanes) += d0 * least0;
      lanes(errors + (s + 1) * kLanes) += d1 * least1;
      lanes(errors + (s + 2) * kLanes) += d2 * least2;
      lanes(errors + (s + 3) * kLanes) += d3 * least3;
    }
  }

  MOESAIC_BODY static void choose_word(const float* x, const Candidates& set, const float* step,
                                       std::int32_t* index) {
    Lanes product[kMostWords];
    all_products(x, set, product);
    const Lanes d = lanes(step);
    // Four chains, so that comparisons need not wait for each other.
    Lanes least[4];
    Ints chosen[4];
    for (std::int32_t i = 0; i < 4; ++i) {
      least[i] = d * set.norms[i] + product[i];
      chosen[i] = Ints{} + i;
    }
    for (std::size_t b = 4; b < set.words; b += 4)
#pragma GCC unroll 4
      for (std::size_t i = 0; i < 4; ++i) {
        const Lanes e = d * set.norms[b + i] + product[b + i];
        const Ints better = e < least[i];
        least[i] = better ? e : least[i];
        chosen[i] = better ? Ints{} + static_cast<std::int32_t>(b + i) : chosen[i];
      }
    for (std::size_t i = 1; i < 4; ++i) {
      const Ints better =
          (least[i] < least[0]) | ((least[i] == least[0]) & (chosen[i] < chosen[0]));
      least[0] = better ? least[i] : least[0];
      chosen[0] = better ? chosen[i] : chosen[0];
    }
    *reinterpret_cast<Ints*>(index) = d > 0.0F ? chosen[0] : Ints{};
  }

  MOESAIC_BODY static void accumulate(float* c, const float* r, std::size_t stride, const float* e,
                                      std::size_t rows) {
    constexpr std::size_t kTile = 8;
    // So many rows of R and e stay in L1 while all columns pass.
    constexpr std::size_t kRows = 64;
    for (std::size_t first = 0; first < rows; first += kRows) {
      const std::size_t last = rows - first < kRows ? rows : first + kRows;
      for (std::size_t k = 0; k < 64; k += kTile) {
        Lanes sum[kTile];
#pragma GCC unroll 8
        for (std::size_t i = 0; i < kTile; ++i) sum[i] = lanes(c + (k + i) * kLanes);
        for (std::size_t j = first; j < last; ++j) {
          const Lanes error = lanes(e + j * kLanes);
          const float* factor = r + j * stride + k;
#pragma GCC unroll 8
          for (std::size_t i = 0; i < kTile; ++i) sum[i] += error * factor[i];
        }
#pragma GCC unroll 8
        for (std::size_t i = 0; i < kTile; ++i) lanes(c + (k + i) * kLanes) = sum[i];
      }
    }
  }

  MOESAIC_BODY static void sweep(const float* w, float* c, const float* r, std::size_t stride,
                                 const float* inverse_diagonal, std::size_t count, std::size_t rest,
                                 const float* step, const float* inverse_step, float low,
                                 float high, float* q, float* e) {
    const Lanes size = lanes(step);
    const Lanes inverse = lanes(inverse_step);
    const Lanes least = Lanes{} + low;
    const Lanes most = Lanes{} + high;
    for (std::size_t k = 0; k < count; ++k) {
      const Lanes value = lanes(w + k * kLanes);
      Lanes t = (value + lanes(c + k * kLanes) * inverse_diagonal[k]) * inverse;
      t = t < least ? least : t;
      t = t > most ? most : t;
      const Lanes rounded = (t + kRounder) - kRounder;
      const Lanes error = value - rounded * size;
      lanes(q + k * kLanes) = rounded;
      lanes(e + k * kLanes) = error;
      for (std::size_t i = k + 1; i < rest; ++i) lanes(c + i * kLanes) += error * r[k * stride + i];
    }
  }

  MOESAIC_BODY static void best_mult(const float* w, const float* c, const float* inverse_diagonal,
                                     const float* weight, const float* scale, float* mult,
                                     float* error) {
    Lanes target[16];
    Lanes least = {};
    for (std::size_t k = 0; k < 16; ++k) {
      target[k] = lanes(w + k * kLanes) + lanes(c + k * kLanes) * inverse_diagonal[k];
      const Lanes d = target[k] * weight[k];
      least += d * d;
    }
    const Lanes low = Lanes{} - 8.0F;
    const Lanes high = Lanes{} + 7.0F;
    Lanes best = {};
    for (int m = 1; m < 16; ++m) {
      const Lanes step = lanes(scale) * static_cast<float>(m);
      const Lanes inverse = 1.0F / (step > 0.0F ? step : Lanes{} + 1.0F);
      Lanes sum = {};
      for (std::size_t k = 0; k < 16; ++k) {
        Lanes t = target[k] * inverse;
        t = t < low ? low : t;
        t = t > high ? high : t;
        const Lanes d = (target[k] - ((t + kRounder) - kRounder) * step) * weight[k];
        sum += d * d;
      }
      const Ints better = sum < least;
      least = better ? sum : least;
      best = better ? Lanes{} + static_cast<float>(m) : best;
    }
    lanes(mult) = best;
    lanes(error) = least;
  }
};

#define MOESAIC_LEVEL(name, target, bytes)                                                         \
  target void name##_errors(const float* x, const Candidates& set, const float* steps,             \
                            std::size_t count, float* errors) {                                    \
    for (std::size_t i = 0; i < kLanes; i += (bytes) / 4)                                          \
      Bodies<bytes>::word_errors(x + i, set, steps + i, count, errors + i);                        \
  }                                                                                                \
  target void name##_choose(const float* x, const Candidates& set, const float* step,              \
                            std::int32_t* index) {                                                 \
    for (std::size_t i = 0; i < kLanes; i += (bytes) / 4)                                          \
      Bodies<bytes>::choose_word(x + i, set, step + i, index + i);                                 \
  }                                                                                                \
  target void name##_accumulate(float* c, const float* r, std::size_t stride, const float* e,      \
                                std::size_t rows) {                                                \
    for (std::size_t i = 0; i < kLanes; i += (bytes) / 4)                                          \
      Bodies<bytes>::accumulate(c + i, r, stride, e + i, rows);                                    \
  }                                                                                                \
  target void name##_sweep(const float* w, float* c, const float* r, std::size_t stride,           \
                           const float* inverse_diagonal, std::size_t count, std::size_t rest,     \
                           const float* step, const float* inverse_step, float low, float high,    \
                           float* q, float* e) {                                                   \
    for (std::size_t i = 0; i < kLanes; i += (bytes) / 4)                                          \
      Bodies<bytes>::sweep(w + i, c + i, r, stride, inverse_diagonal, count, rest, step + i,       \
                           inverse_step + i, low, high, q + i, e + i);                             \
  }                                                                                                \
  target void name##_mult(const float* w, const float* c, const float* inverse_diagonal,           \
                          const float* weight, const float* scale, float* mult, float* error) {    \
    for (std::size_t i = 0; i < kLanes; i += (bytes) / 4)                                          \
      Bodies<bytes>::best_mult(w + i, c + i, inverse_diagonal, weight, scale + i, mult + i,        \
                               error + i);                                                         \
  }                                                                                                \
  constexpr LaneKernels k_##name = {name##_errors, name##_choose, name##_accumulate, name##_sweep, \
                                    name##_mult};

#define MOESAIC_PLAIN
MOESAIC_LEVEL(scalar, MOESAIC_PLAIN, 16)
MOESAIC_LEVEL(avx2, MOESAIC_AVX2, 32)
MOESAIC_LEVEL(avx512, MOESAIC_AVX512, 64)

}  // namespace

const LaneKernels& lane_kernels_for(Isa isa) {
  if (isa >= Isa::kAvx512) return k_avx512;
  return isa >= Isa::kAvx2 ? k_avx2 : k_scalar;
}

}  // namespace moesaic
