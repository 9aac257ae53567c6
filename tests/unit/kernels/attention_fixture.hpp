#pragma once

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "common/base/aligned_buffer.hpp"
#include "common/kernels/attention.hpp"
#include "tests/support/kernel_values.hpp"

namespace moesaic::test {

inline AttentionShape shape_of(Compute kv, std::size_t heads, std::size_t kv_heads,
                               std::size_t head_dim) {
  return {kv, heads, kv_heads, head_dim};
}

inline std::vector<Isa> portable_isas() {
  auto isas = available_isas();
  std::erase(isas, Isa::kAvx512Bf16);
  return isas;
}

/// A sequence of `tokens` random tokens with its cache; pages lie in memory in a shuffled order and
/// are filled with NaN where no token stands.
struct Sequence {
  AttentionShape shape;
  std::size_t tokens;
  std::vector<float> q, k, v;
  std::size_t pages_per_head;
  AlignedBuffer memory;
  std::vector<const std::byte*> pages;

  Sequence(const AttentionShape& s, std::size_t n, unsigned seed, unsigned page_seed = 7)
      : shape(s),
        tokens(n),
        q(gaussian(n * s.heads * s.head_dim, seed, 2)),
        k(gaussian(n * s.kv_heads * s.head_dim, seed + 1)),
        v(gaussian(n * s.kv_heads * s.head_dim, seed + 2)),
        pages_per_head((n + kPageTokens - 1) / kPageTokens),
        memory(pages_per_head * s.kv_heads * s.page_bytes()),
        pages(pages_per_head * s.kv_heads) {
    std::memset(memory.data(), 0xff, memory.size());  // NaN as f32 and as bf16
    std::vector<std::size_t> place(pages.size());
    std::iota(place.begin(), place.end(), 0);
    std::shuffle(place.begin(), place.end(), std::mt19937(page_seed));
    for (std::size_t i = 0; i < pages.size(); ++i)
      pages[i] = memory.data() + place[i] * s.page_bytes();
    for (std::size_t t = 0; t < n; ++t)
      for (std::size_t h = 0; h < s.kv_heads; ++h) {
        auto* page = const_cast<std::byte*>(pages[h * pages_per_head + t / kPageTokens]);
        const std::size_t at = (t * s.kv_heads + h) * s.head_dim;
        append_kv(s, page, t % kPageTokens, k.data() + at, v.data() + at);
      }
  }

  /// Stores other vectors for token t of KV head h.
  void replace(std::size_t t, std::size_t h, const float* key, const float* value) {
    auto* page = const_cast<std::byte*>(pages[h * pages_per_head + t / kPageTokens]);
    append_kv(shape, page, t % kPageTokens, key, value);
  }

  std::size_t width() const { return shape.heads * shape.head_dim; }

  AttentionTask task(std::size_t first, std::size_t rows, std::vector<float>& out) const {
    out.assign(rows * width(), -1);
    AttentionTask t;
    t.q = q.data() + first * width();
    t.q_stride = width();
    t.rows = rows;
    t.first_position = first;
    t.pages = pages.data();
    t.page_stride = pages_per_head;
    t.out = {Compute::kF32, out.data(), rows, width(), width()};
    return t;
  }

  std::vector<float> run(Isa isa, std::size_t first, std::size_t rows) const {
    std::vector<float> out;
    attention_for(isa)(shape, task(first, rows, out), 0, shape.kv_heads);
    return out;
  }
};

struct AttentionCase {
  Compute kv;
  std::size_t heads, kv_heads, head_dim, tokens;
};

}  // namespace moesaic::test
