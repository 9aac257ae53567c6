#include "common/quantize/ccq_encoder.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <utility>

#include "common/tensor/bf16.hpp"

namespace moesaic {
namespace {

constexpr std::size_t kGroup = 64;
constexpr std::size_t kGrid = 20;
constexpr float kRatio = 1.06F;
constexpr float kFirst = 0.558394777F;  // 1.06^-10
/// Steps that reach a group's largest weight, or nearly: for groups with an outlier.
constexpr std::array<float, 4> kReach = {1.0F, 0.8F, 0.64F, 0.5F};
constexpr std::size_t kSteps = kGrid + kReach.size();
constexpr std::array<float, 6> kSuperFactors = {0.80F, 0.85F, 0.90F, 0.95F, 1.00F, 1.05F};
constexpr int kPolishes = 2;
/// Local scales that calibration looks at on either side of the plain one, an eighth of it apart.
constexpr int kLocalReach = 2;
constexpr int kLocalParts = 8;

Candidates candidates(const Codebook& book) {
  return {book.weights, book.words, book.values.data(), book.norms.data()};
}

int local_at(int l, int most) { return std::clamp(l, 1, most); }

}  // namespace

CcqEncoder::CcqEncoder(CcqScheme scheme, std::size_t cols, std::size_t groups,
                       const LaneKernels& kernels)
    : scheme_(std::move(scheme)), cols_(cols), groups_(groups), kernels_(kernels) {
  assert(cols <= groups * kGroup);
  for (const auto& book : scheme_.books)
    for (std::size_t used = 1; used <= 3; ++used) cut_.push_back(truncated(book, used));
}

const Codebook* CcqEncoder::book_of(std::size_t group, const WordPlace& place) const {
  const std::size_t first = group * kGroup + place.first;
  if (first >= cols_) return nullptr;
  const std::size_t used = cols_ - first;
  if (used >= scheme_.books[place.book].weights) return &scheme_.books[place.book];
  return &cut_[place.book * 3 + used - 1];
}

void CcqEncoder::group_errors(const LaneArray& x, std::size_t group, const LaneArray& steps,
                              std::size_t count, LaneArray& errors) const {
  for (const auto& place : scheme_.words)
    if (const Codebook* book = book_of(group, place))
      kernels_.word_errors(x[group * kGroup + place.first], candidates(*book), steps[0], count,
                           errors[0]);
}

LaneArray CcqEncoder::best_steps(const LaneArray& x) const {
  LaneArray best(groups_);
  for (std::size_t g = 0; g < groups_; ++g) {
    if (g * kGroup >= cols_) break;
    const std::size_t count = std::min(kGroup, cols_ - g * kGroup);
    std::array<float, kLanes> squares{};
    std::array<float, kLanes> most{};
    for (std::size_t k = 0; k < count; ++k)
      for (std::size_t i = 0; i < kLanes; ++i) {
        const float v = x[g * kGroup + k][i];
        squares[i] += v * v;
        most[i] = std::max(most[i], std::fabs(v));
      }
    LaneArray steps(kSteps);
    LaneArray errors(kSteps);
    for (std::size_t i = 0; i < kLanes; ++i) {
      float step = scheme_.start * std::sqrt(squares[i] / static_cast<float>(count)) * kFirst;
      for (std::size_t s = 0; s < kGrid; ++s, step *= kRatio) steps[s][i] = step;
      for (std::size_t s = 0; s < kReach.size(); ++s)
        steps[kGrid + s][i] = most[i] / scheme_.most_value * kReach[s];
    }
    group_errors(x, g, steps, kSteps, errors);
    for (std::size_t i = 0; i < kLanes; ++i) {
      std::size_t found = 0;
      for (std::size_t s = 1; s < kSteps; ++s)
        if (errors[s][i] < errors[found][i]) found = s;
      best[g][i] = steps[found][i];
    }
  }
  return best;
}

void CcqEncoder::choose_scales(const LaneArray& x, const LaneArray& best, CcqLanes& out) const {
  const std::size_t factors = scheme_.search_super ? kSuperFactors.size() : 1;
  const std::size_t tries = factors * 3;
  const std::size_t count = (tries + 3) / 4 * 4;
  std::array<float, kLanes> most{};
  for (std::size_t g = 0; g < groups_; ++g)
    for (std::size_t i = 0; i < kLanes; ++i) most[i] = std::max(most[i], best[g][i]);
  std::vector<std::array<float, kLanes>> super(factors);
  for (std::size_t f = 0; f < factors; ++f)
    for (std::size_t i = 0; i < kLanes; ++i) {
      const float factor = scheme_.search_super ? kSuperFactors[f] : 1.0F;
      super[f][i] = round_to_bf16(factor * most[i] / static_cast<float>(scheme_.most_local));
    }

  std::vector<std::array<double, kLanes>> total(factors);
  std::vector<std::uint16_t> local(factors * groups_ * kLanes);
  for (std::size_t g = 0; g < groups_; ++g) {
    LaneArray steps(count);
    LaneArray errors(count);
    std::vector<std::array<int, kLanes>> tried(tries);
    for (std::size_t i = 0; i < kLanes; ++i) {
      if (best[g][i] == 0) continue;
      for (std::size_t f = 0; f < factors; ++f) {
        const int middle = static_cast<int>(best[g][i] / super[f][i] + 0.5F);
        for (int o = 0; o < 3; ++o) {
          const std::size_t t = f * 3 + static_cast<std::size_t>(o);
          tried[t][i] = local_at(middle + o - 1, scheme_.most_local);
          steps[t][i] = static_cast<float>(tried[t][i]) * super[f][i];
        }
      }
    }
    group_errors(x, g, steps, count, errors);
    for (std::size_t f = 0; f < factors; ++f)
      for (std::size_t i = 0; i < kLanes; ++i) {
        std::size_t found = f * 3;
        for (std::size_t t = f * 3 + 1; t < f * 3 + 3; ++t)
          if (errors[t][i] < errors[found][i]) found = t;
        total[f][i] += double{errors[found][i]};
        local[(f * groups_ + g) * kLanes + i] = static_cast<std::uint16_t>(tried[found][i]);
      }
  }
  out.local.resize(groups_ * kLanes);
  for (std::size_t i = 0; i < kLanes; ++i) {
    std::size_t found = 0;
    for (std::size_t f = 1; f < factors; ++f)
      if (total[f][i] < total[found][i]) found = f;
    out.super[i] = super[found][i];
    for (std::size_t g = 0; g < groups_; ++g)
      out.local[g * kLanes + i] = local[(found * groups_ + g) * kLanes + i];
  }
}

void CcqEncoder::choose_words(const LaneArray& x, CcqLanes& out) const {
  const std::size_t words = scheme_.words.size();
  out.index.assign(groups_ * words * kLanes, 0);
  LaneArray step(1);
  alignas(64) std::int32_t chosen[kLanes];
  for (std::size_t g = 0; g < groups_; ++g) {
    for (std::size_t i = 0; i < kLanes; ++i)
      step[0][i] = static_cast<float>(out.local[g * kLanes + i]) * out.super[i];
    for (std::size_t w = 0; w < words; ++w) {
      const Codebook* book = book_of(g, scheme_.words[w]);
      if (book == nullptr) continue;
      kernels_.choose_word(x[g * kGroup + scheme_.words[w].first], candidates(*book), step[0],
                           chosen);
      for (std::size_t i = 0; i < kLanes; ++i)
        out.index[(g * words + w) * kLanes + i] = static_cast<std::uint16_t>(chosen[i]);
    }
  }
}

/// With words and local scales fixed the best super scale is a quotient; words are chosen again
/// under it, and kept if the error falls.
void CcqEncoder::polish(const LaneArray& x, CcqLanes& out) const {
  const std::size_t words = scheme_.words.size();
  const auto sums = [&](const CcqLanes& lanes, std::array<double, kLanes>& products,
                        std::array<double, kLanes>& squares) {
    products.fill(0);
    squares.fill(0);
    for (std::size_t g = 0; g < groups_; ++g)
      for (std::size_t w = 0; w < words; ++w) {
        const Codebook* book = book_of(g, scheme_.words[w]);
        if (book == nullptr) continue;
        const std::size_t first = g * kGroup + scheme_.words[w].first;
        for (std::size_t i = 0; i < kLanes; ++i) {
          const std::size_t chosen = lanes.index[(g * words + w) * kLanes + i];
          const double l = lanes.local[g * kLanes + i];
          float product = 0;
          for (std::size_t j = 0; j < book->weights; ++j)
            product += x[first + j][i] * book->values[4 * chosen + j];
          products[i] += l * double{product};
          squares[i] += l * l * double{book->norms[chosen]};
        }
      }
  };
  const auto error = [](double super, double product, double square) {
    return super * (super * square - 2 * product);
  };
  std::array<double, kLanes> products;
  std::array<double, kLanes> squares;
  sums(out, products, squares);
  for (std::size_t i = 0; i < kLanes; ++i)
    out.error[i] = error(double{out.super[i]}, products[i], squares[i]);
  for (int round = 0; round < kPolishes; ++round) {
    CcqLanes next = out;
    for (std::size_t i = 0; i < kLanes; ++i)
      if (squares[i] > 0 && products[i] > 0)
        next.super[i] = round_to_bf16(static_cast<float>(products[i] / squares[i]));
    choose_words(x, next);
    sums(next, products, squares);
    for (std::size_t i = 0; i < kLanes; ++i) {
      next.error[i] = error(double{next.super[i]}, products[i], squares[i]);
      if (!(next.error[i] < out.error[i])) continue;
      out.super[i] = next.super[i];
      out.error[i] = next.error[i];
      for (std::size_t w = 0; w < groups_ * words; ++w)
        out.index[w * kLanes + i] = next.index[w * kLanes + i];
    }
    if (round + 1 < kPolishes) sums(out, products, squares);
  }
}

CcqLanes CcqEncoder::encode(const LaneArray& x) const {
  CcqLanes out;
  choose_scales(x, best_steps(x), out);
  choose_words(x, out);
  polish(x, out);
  return out;
}

CcqLanes CcqEncoder::encode(const LaneArray& x, const InputFactor& inputs) const {
  assert(inputs.cols() == cols_ && inputs.padded() >= groups_ * kGroup);
  CcqLanes out = encode(x);
  out.error.fill(0);
  const std::size_t words = scheme_.words.size();
  LaneArray errors(groups_ * kGroup);  // w - q
  std::vector<Codebook> turned(words);
  for (std::size_t g = 0; g < groups_ && g * kGroup < cols_; ++g) {
    const std::size_t base = g * kGroup;
    // What the errors so far add to each column of the group.
    LaneArray carried(kGroup);
    kernels_.accumulate(carried[0], inputs.at(0, base), InputFactor::kStride, errors[0], base);

    // The candidates as R sees them: a word's cost is a plain distance then.
    LaneArray seen(kGroup + 3);
    const auto look = [&](std::size_t w) {
      const std::size_t first = scheme_.words[w].first;
      for (std::size_t k = 0; k < turned[w].weights; ++k)
        for (std::size_t i = 0; i < kLanes; ++i) {
          float y = carried[first + k][i];
          for (std::size_t j = 0; j <= k; ++j)
            y += *inputs.at(base + first + j, base + first + k) * x[base + first + j][i];
          seen[first + k][i] = y;
        }
    };
    for (std::size_t w = 0; w < words; ++w) {
      const Codebook* book = book_of(g, scheme_.words[w]);
      turned[w].weights = 0;
      if (book == nullptr) continue;
      turned[w] = *book;
      const std::size_t first = base + scheme_.words[w].first;
      for (std::size_t b = 0; b < book->words; ++b)
        for (std::size_t k = 0; k < book->weights; ++k) {
          float sum = 0;
          for (std::size_t j = 0; j <= k; ++j)
            sum += *inputs.at(first + j, first + k) * book->values[4 * b + j];
          turned[w].values[4 * b + k] = sum;
        }
      turned[w].set_norms();
    }

    // Local scales once more, for the targets as they stand now.
    constexpr std::size_t kTries = 2 * kLocalReach + 1;
    constexpr std::size_t kCount = (kTries + 3) / 4 * 4;
    LaneArray steps(kCount);
    LaneArray costs(kCount);
    std::array<std::array<int, kLanes>, kTries> tried{};
    for (std::size_t i = 0; i < kLanes; ++i) {
      const int l = out.local[g * kLanes + i];
      for (std::size_t t = 0; t < kTries && l > 0; ++t) {
        const int apart = std::max(1, l / kLocalParts);
        tried[t][i] = local_at(l + (static_cast<int>(t) - kLocalReach) * apart, scheme_.most_local);
        steps[t][i] = static_cast<float>(tried[t][i]) * out.super[i];
      }
    }
    for (std::size_t w = 0; w < words; ++w) {
      if (turned[w].weights == 0) continue;
      look(w);
      kernels_.word_errors(seen[scheme_.words[w].first], candidates(turned[w]), steps[0], kCount,
                           costs[0]);
    }
    for (std::size_t i = 0; i < kLanes; ++i) {
      std::size_t found = kLocalReach;
      for (std::size_t t = 0; t < kTries; ++t)
        if (costs[t][i] < costs[found][i]) found = t;
      out.local[g * kLanes + i] = static_cast<std::uint16_t>(tried[found][i]);
    }

    LaneArray step(1);
    for (std::size_t i = 0; i < kLanes; ++i)
      step[0][i] = static_cast<float>(out.local[g * kLanes + i]) * out.super[i];
    for (std::size_t w = 0; w < words; ++w) {
      if (turned[w].weights == 0) continue;
      look(w);
      const std::size_t first = scheme_.words[w].first;
      alignas(64) std::int32_t chosen[kLanes];
      kernels_.choose_word(seen[first], candidates(turned[w]), step[0], chosen);
      const Codebook& book = *book_of(g, scheme_.words[w]);
      for (std::size_t i = 0; i < kLanes; ++i) {
        const auto c = static_cast<std::size_t>(chosen[i]);
        out.index[(g * words + w) * kLanes + i] = static_cast<std::uint16_t>(c);
        for (std::size_t j = 0; j < book.weights; ++j) {
          errors[base + first + j][i] =
              x[base + first + j][i] - book.values[4 * c + j] * step[0][i];
          const float miss = seen[first + j][i] - turned[w].values[4 * c + j] * step[0][i];
          out.error[i] += double{miss} * double{miss};
        }
      }
      kernels_.accumulate(carried[0], inputs.at(base + first, base), InputFactor::kStride,
                          errors[base + first], book.weights);
    }
  }
  return out;
}

}  // namespace moesaic
