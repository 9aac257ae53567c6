#include "common/sampling/sampler.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

#include "common/kernels/elementwise.hpp"
#include "common/kernels/norm.hpp"

namespace moesaic {
namespace {

/// Output of splitmix64 for the state x + golden gamma.
std::uint64_t splitmix64(std::uint64_t x) {
  std::uint64_t z = x + 0x9E3779B97F4A7C15U;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

}  // namespace

float draw_uniform(std::uint64_t seed, std::uint32_t choice, std::uint64_t position) {
  const auto z = splitmix64(splitmix64(splitmix64(seed) + choice) + position);
  return static_cast<float>(z >> 40) * 0x1p-24F;
}

std::optional<std::int32_t> Sampler::draw(std::span<const float> logits,
                                          const SamplingParams& params, std::uint64_t position) {
  assert(!logits.empty());
  const auto best =
      static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  if (!std::isfinite(logits[best])) return std::nullopt;
  if (params.temperature == 0.0F) return static_cast<std::int32_t>(best);

  const std::size_t n = logits.size();
  p_.resize(n);
  const float most = logits[best];
  for (std::size_t i = 0; i < n; ++i) p_[i] = (logits[i] - most) / params.temperature;
  elementwise_for(active_isa()).exp(p_.data(), n, p_.data());

  if ((params.top_k > 0 && params.top_k < n) || params.top_p < 1.0F) keep_first(params);
  if (params.min_p > 0.0F)  // the best token has p = 1
    for (auto& p : p_)
      if (p < params.min_p) p = 0.0F;

  const float target =
      draw_uniform(params.seed, params.choice, position) * stripe64_dot(p_.data(), nullptr, n);
  float sum = 0.0F;
  std::size_t last = best;
  for (std::size_t i = 0; i < n; ++i) {
    if (p_[i] == 0.0F) continue;
    sum += p_[i];
    last = i;
    if (sum > target) break;
  }
  return static_cast<std::int32_t>(last);
}

/// Zeroes all but the top_k most probable tokens and, of these, all but the shortest run that
/// reaches top_p. Ranks are sorted only as far as they are needed.
void Sampler::keep_first(const SamplingParams& params) {
  constexpr std::size_t kFirstRanks = 256;
  const std::size_t n = p_.size();
  // A total order gives one result everywhere: probabilities descending, ids ascending.
  const auto before = [this](std::uint32_t a, std::uint32_t b) {
    return p_[a] > p_[b] || (p_[a] == p_[b] && a < b);
  };
  const std::size_t most = params.top_k > 0 ? std::min<std::size_t>(params.top_k, n) : n;
  const bool by_sum = params.top_p < 1.0F;
  const float wanted = by_sum ? params.top_p * stripe64_dot(p_.data(), nullptr, n) : 0.0F;
  order_.resize(n);
  std::iota(order_.begin(), order_.end(), 0U);
  float sum = 0.0F;
  std::size_t taken = 0, sorted = 0;
  while (taken < most && (!by_sum || taken == 0 || sum < wanted)) {
    if (taken == sorted) {
      const auto first = order_.begin() + static_cast<std::ptrdiff_t>(sorted);
      sorted = by_sum ? std::min(most, std::max(kFirstRanks, sorted * 4)) : most;
      const auto end = order_.begin() + static_cast<std::ptrdiff_t>(sorted);
      if (end != order_.end()) std::nth_element(first, end, order_.end(), before);
      std::sort(first, end, before);
    }
    sum += p_[order_[taken++]];
  }
  const auto last = order_[taken - 1];
  const float least = p_[last];
  for (std::uint32_t i = 0; i < n; ++i)
    if (p_[i] < least || (p_[i] == least && i > last)) p_[i] = 0.0F;
}

}  // namespace moesaic
