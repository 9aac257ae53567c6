#include "common/kernels/router_gate.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "common/kernels/cpu/norm_impl.hpp"
#include "common/kernels/elementwise.hpp"

namespace moesaic {

static_assert(kRouterRows == norm_detail::kDotRows);

namespace {

constexpr float kMinWeightSum = 1e-12F;

/// Of the probabilities p: the top_k of p + bias in descending order, ties to the lower id, and
/// their weights.
void choose(const RouterGate& gate, const float* p, std::uint32_t* ids, float* weights) {
  assert(gate.top_k <= gate.experts && gate.experts <= 64);
  std::uint64_t taken = 0;
  for (std::size_t i = 0; i < gate.top_k; ++i) {
    std::size_t best = gate.experts;
    float best_key = 0;
    for (std::size_t e = 0; e < gate.experts; ++e) {
      if ((taken >> e & 1) != 0) continue;
      const float key = p[e] + gate.bias[e];
      if (best == gate.experts || key > best_key) best = e, best_key = key;
    }
    taken |= std::uint64_t{1} << best;
    ids[i] = static_cast<std::uint32_t>(best);
  }
  float sum = 0;
  for (std::size_t e = 0; e < gate.experts; ++e)
    if ((taken >> e & 1) != 0) sum += p[e];
  sum = std::max(sum, kMinWeightSum);
  for (std::size_t i = 0; i < gate.top_k; ++i) weights[i] = p[ids[i]] / sum;
}

template <Isa kIsa>
void logits_at(const RouterGate& gate, std::span<const float* const> u, std::size_t first,
               std::size_t last, std::span<float* const> logits) {
  static const norm_detail::Level& level = norm_detail::level_for(kIsa);
  for (std::size_t r = 0; r < u.size(); r += kRouterRows) {
    const std::size_t rows = std::min(kRouterRows, u.size() - r);
    float* out[kRouterRows];
    for (std::size_t i = 0; i < rows; ++i) out[i] = logits[r + i] + first;
    level.dots(&u[r], rows, gate.weight.data() + first * gate.hidden, last - first, gate.hidden,
               out);
  }
}

template <Isa kIsa>
void choose_at(const RouterGate& gate, const float* logits, std::uint32_t* ids, float* weights) {
  static const norm_detail::Level& level = norm_detail::level_for(kIsa);
  static const Elementwise& rows = elementwise_for(kIsa);
  const float max = *std::max_element(logits, logits + gate.experts);
  float p[64];
  for (std::size_t e = 0; e < gate.experts; ++e) p[e] = logits[e] - max;
  rows.exp(p, gate.experts, p);
  const float sum = level.sum(p, gate.experts);
  for (std::size_t e = 0; e < gate.experts; ++e) p[e] /= sum;
  choose(gate, p, ids, weights);
}

template <Isa kIsa>
void route_at(const RouterGate& gate, const float* u, float* logits, std::uint32_t* ids,
              float* weights) {
  logits_at<kIsa>(gate, std::span(&u, 1), 0, gate.experts, std::span(&logits, 1));
  choose_at<kIsa>(gate, logits, ids, weights);
}

}  // namespace

RouteFn route_for(Isa isa) {
  if (isa >= Isa::kAvx512) return route_at<Isa::kAvx512>;
  return isa == Isa::kAvx2 ? route_at<Isa::kAvx2> : route_at<Isa::kScalar>;
}

void router_logits(const RouterGate& gate, std::span<const float* const> u, std::size_t first,
                   std::size_t last, std::span<float* const> logits) {
  static const auto best = active_isa() >= Isa::kAvx512 ? logits_at<Isa::kAvx512>
                           : active_isa() == Isa::kAvx2 ? logits_at<Isa::kAvx2>
                                                        : logits_at<Isa::kScalar>;
  best(gate, u, first, last, logits);
}

void router_choose(const RouterGate& gate, const float* logits, std::uint32_t* ids,
                   float* weights) {
  static const auto best = active_isa() >= Isa::kAvx512 ? choose_at<Isa::kAvx512>
                           : active_isa() == Isa::kAvx2 ? choose_at<Isa::kAvx2>
                                                        : choose_at<Isa::kScalar>;
  best(gate, logits, ids, weights);
}

void route_ref(const RouterGate& gate, const float* u, float* logits, std::uint32_t* ids,
               float* weights) {
  double total = 0, p64[64];
  for (std::size_t e = 0; e < gate.experts; ++e) {
    double dot = 0;
    for (std::size_t i = 0; i < gate.hidden; ++i)
      dot += double{u[i]} * gate.weight[e * gate.hidden + i];
    logits[e] = static_cast<float>(dot);
    p64[e] = std::exp(dot);
    total += p64[e];
  }
  float p[64];
  for (std::size_t e = 0; e < gate.experts; ++e) p[e] = static_cast<float>(p64[e] / total);
  choose(gate, p, ids, weights);
}

}  // namespace moesaic
