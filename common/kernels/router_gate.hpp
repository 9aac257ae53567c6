#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/base/aligned_buffer.hpp"
#include "common/kernels/isa.hpp"
#include "common/tensor/view.hpp"

namespace moesaic {

/// The gate of one layer and modality, f32 in every compute mode.
struct RouterGate {
  std::size_t experts = 0;
  std::size_t hidden = 0;
  std::size_t top_k = 0;
  AlignedVector<float> weight;  ///< [experts][hidden] row-major
  AlignedVector<float>
      bias;  ///< [experts], e_score_correction_bias: moves the choice, never the weights
};

/// Rows that `router_logits` takes at a time.
inline constexpr std::size_t kRouterRows = 6;

/// Logits of experts [first, last) of some rows, stripe-64 dot products: the first half of a
/// choice, which threads can share. Rows share the weights that are read, kRouterRows at a time; a
/// logit depends on its own row only.
/// @param u      each [hidden] f32 (bf16-valued where norms round)
/// @param logits each [experts]; those of the range are written
/// @pre u.size() == logits.size()
void router_logits(const RouterGate& gate, std::span<const float* const> u, std::size_t first,
                   std::size_t last, std::span<float* const> logits);

/// The choice by the logits of all experts (at most 64, asserted): descending p + bias, ties to the
/// lower id.
/// @param ids     [top_k] out
/// @param weights [top_k] out: p / max(sum of chosen p, 1e-12), softmax over all experts of this
/// modality with exp_portable and a stripe-64 sum; the sum of the chosen in ascending id order
void router_choose(const RouterGate& gate, const float* logits, std::uint32_t* ids, float* weights);

/// Both for one level; for tests.
using RouteFn = void (*)(const RouterGate&, const float*, float*, std::uint32_t*, float*);
RouteFn route_for(Isa isa);
void route_ref(const RouterGate& gate, const float* u, float* logits, std::uint32_t* ids,
               float* weights);

}  // namespace moesaic
