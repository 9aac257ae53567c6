#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <vector>

#include "common/base/aligned_buffer.hpp"
#include "common/kernels/cpu/attention_impl.hpp"
#include "common/kernels/elementwise.hpp"
#include "common/kernels/rope.hpp"

// What happens to single vectors: keys and values on their way into pages, queries before the
// pages, states after them.
namespace moesaic::attention_detail {
namespace {

/// Calls fn(first, count, [count] scratch) for n elements part by part.
template <class Fn>
void for_parts(std::size_t n, Fn fn) {
  float part[128];
  for (std::size_t first = 0; first < n; first += 128)
    fn(first, std::min<std::size_t>(128, n - first), part);
}

// ---------------------------------------------------------------- plain vectors

void turn(const float* x, const float* cos, const float* sin, std::size_t n, float* y) {
  std::copy_n(x, n, y);
  rope_text(y, 1, n, cos, sin);
}

void scale(const float* x, float factor, std::size_t n, float* y) {
  for (std::size_t i = 0; i < n; ++i) y[i] = x[i] * factor;
}

std::int32_t sum(const std::int8_t* x, std::size_t n) {
  std::int32_t all = 0;
  for (std::size_t i = 0; i < n; ++i) all += x[i];
  return all;
}

void merge(float* into, const float* from, std::size_t n, float r, float r2) {
  for (std::size_t i = 0; i < n; ++i) into[i] = into[i] * r + from[i] * r2;
}

/// + 0 makes -0 into +0: whether masked keys were added as zeros must not be visible.
void divide(const float* x, float divisor, std::size_t n, Compute compute, void* y) {
  if (compute == Compute::kF32) {
    for (std::size_t i = 0; i < n; ++i) static_cast<float*>(y)[i] = (x[i] + 0.0F) / divisor;
    return;
  }
  for_parts(n, [&](std::size_t first, std::size_t count, float* part) {
    for (std::size_t i = 0; i < count; ++i) part[i] = (x[first + i] + 0.0F) / divisor;
    to_bf16(part, count, static_cast<Bf16*>(y) + first);
  });
}

// ---------------------------------------------------------------- keys and values

/// Interleaves quantised vectors [D] of one token.
void interleave(const PageLayout& layout, std::byte* page, std::size_t token,
                const std::int8_t* key, const std::int8_t* value) {
  for (std::size_t d = 0; d < layout.dim; d += 4) {
    std::uint32_t four;
    std::memcpy(&four, key + d, sizeof four);
    four ^= 0x80808080U;  // + 128
    std::memcpy(page + d * kPageTokens + token * 4, &four, sizeof four);
  }
  auto* values = reinterpret_cast<std::int8_t*>(page + layout.values_offset());
  for (std::size_t d0 = 0; d0 < layout.dim; d0 += kRun) {
    const std::size_t width = layout.part_width(d0);
    std::int8_t* at = values + d0 * kPageTokens + token / 4 * width * 4 + token % 4;
    for (std::size_t d = 0; d < width; ++d) at[4 * d] = value[d0 + d];
  }
}

void store_f32(const PageLayout& layout, std::byte* page, std::size_t token, const float* k,
               const float* v, std::size_t head_dim) {
  const std::size_t dim = layout.dim;
  auto* key =
      reinterpret_cast<float*>(page + token / kRun * kRun * dim * layout.elem()) + token % kRun;
  auto* value = reinterpret_cast<float*>(page + layout.values_offset()) + token * dim;
  for (std::size_t d = 0; d < head_dim; ++d) key[d * kRun] = k[d];
  for (std::size_t d = head_dim; d < dim; ++d) key[d * kRun] = 0;
  std::copy_n(v, head_dim, value);
  std::fill(value + head_dim, value + dim, 0.0F);
}

void store_bf16(const PageLayout& layout, std::byte* page, std::size_t token, const float* k,
                const float* v, std::size_t head_dim) {
  const std::size_t dim = layout.dim;
  auto* key = reinterpret_cast<Bf16*>(page + token / kRun * kRun * dim * layout.elem()) +
              2 * (token % kRun);
  auto* const values = reinterpret_cast<Bf16*>(page + layout.values_offset());
  for (std::size_t d = 0; d < head_dim; d += 2) {
    key[d * kRun] = f32_to_bf16(k[d]);
    key[d * kRun + 1] = f32_to_bf16(k[d + 1]);
  }
  for (std::size_t d = head_dim; d < dim; d += 2) key[d * kRun] = key[d * kRun + 1] = 0;
  for (std::size_t d0 = 0; d0 < dim; d0 += kRun) {
    const std::size_t width = layout.part_width(d0), real = std::min(width, head_dim - d0);
    Bf16* value = values + d0 * layout.tokens + token / 2 * width * 2 + token % 2;
    for (std::size_t d = 0; d < real; ++d) value[2 * d] = f32_to_bf16(v[d0 + d]);
    for (std::size_t d = real; d < width; ++d) value[2 * d] = 0;
  }
}

float* scales_of(const PageLayout& layout, std::byte* page, std::size_t token) {
  return reinterpret_cast<float*>(page + layout.scales_offset()) + token;
}

/// The rows of a KvRows at one KV head, turned one by one.
class HeadRows {
 public:
  HeadRows(const Level& level, const KvRows& rows, std::size_t head, std::size_t head_dim,
           float* turned)
      : level_(level),
        rows_(rows),
        column_(head * head_dim),
        head_dim_(head_dim),
        turned_(turned) {}

  /// Valid until the next call.
  const float* key(std::size_t row) const {
    const float* k = rows_.k + row * rows_.stride + column_;
    const RopeAngles angles = rows_.angles.from(row, head_dim_);
    if (angles.cos == nullptr) return k;
    level_.vectors->turn(k, angles.cos, angles.sin, head_dim_, turned_);
    return turned_;
  }
  const float* value(std::size_t row) const { return rows_.v + row * rows_.stride + column_; }
  /// Asks for a row that is wanted soon.
  void fetch(std::size_t row) const {
    if (row >= rows_.rows) return;
    for (std::size_t d = 0; d < head_dim_; d += 16) {
      __builtin_prefetch(rows_.k + row * rows_.stride + column_ + d);
      __builtin_prefetch(value(row) + d);
    }
  }

 private:
  const Level& level_;
  const KvRows& rows_;
  std::size_t column_;
  std::size_t head_dim_;
  float* turned_;
};

}  // namespace

const VectorOps kPlainVectors = {
    .turn = turn, .scale = scale, .sum = sum, .merge = merge, .divide = divide};

void store_kv(const Level& level, const PageLayout& layout, std::byte* page, std::size_t token,
              const float* k, const float* v, std::size_t head_dim) {
  assert(token < layout.tokens && head_dim <= layout.dim && head_dim % 2 == 0);
  if (layout.kv == Compute::kF32) return store_f32(layout, page, token, k, v, head_dim);
  if (layout.kv == Compute::kBf16) return store_bf16(layout, page, token, k, v, head_dim);
  thread_local std::vector<std::int8_t> vectors;
  vectors.resize(2 * layout.dim);
  std::int8_t *const key = vectors.data(), *const value = key + layout.dim;
  float* const scales = scales_of(layout, page, token);
  scales[0] = level.integer->quantize(k, head_dim, layout.dim, key, 64);
  scales[kPageTokens] = level.integer->quantize(v, head_dim, layout.dim, value, 64);
  interleave(layout, page, token, key, value);
}

void store_kv_rows(const Level& level, const PageLayout& layout, std::byte* const* pages,
                   std::size_t token, const KvRows& rows, std::size_t kv_heads,
                   std::size_t head_dim) {
  assert(token + rows.rows <= layout.tokens);
  const std::size_t dim = layout.dim;
  const bool fours =
      layout.kv == Compute::kInt && level.vectors->store_four != nullptr && dim % 64 == 0;
  thread_local AlignedBuffer memory;  // a turned key, four keys and four values in int8
  memory.reserve(dim * sizeof(float) + 8 * dim);
  auto* const turned = memory.as<float>().data();
  auto* const keys = reinterpret_cast<std::int8_t*>(turned + dim);
  std::int8_t* const values = keys + 4 * dim;
  for (std::size_t row = 0, count = 1; row < rows.rows; row += count) {
    const std::size_t slot = token + row;
    count = fours && slot % 4 == 0 && row + 4 <= rows.rows ? 4 : 1;
    for (std::size_t h = 0; h < kv_heads; ++h) {
      const HeadRows head(level, rows, h, head_dim, turned);
      if (count == 1) {
        store_kv(level, layout, pages[h], slot, head.key(row), head.value(row), head_dim);
        continue;
      }
      float* const scales = scales_of(layout, pages[h], slot);
      for (std::size_t i = 0; i < 4; ++i) {
        head.fetch(row + 4 + i);
        scales[i] = level.integer->quantize(head.key(row + i), head_dim, dim, keys + i * dim, 64);
        scales[kPageTokens + i] =
            level.integer->quantize(head.value(row + i), head_dim, dim, values + i * dim, 64);
      }
      level.vectors->store_four(dim, pages[h], slot, keys, values);
    }
  }
}

// ---------------------------------------------------------------- queries and states

void prepare_query(const Level& level, const PageLayout& layout, const float* q,
                   std::size_t head_dim, std::byte* out) {
  const float factor = 1.0F / std::sqrt(static_cast<float>(head_dim));
  auto* f32 = reinterpret_cast<float*>(out);
  if (layout.kv == Compute::kF32) {
    level.vectors->scale(q, factor, head_dim, f32);
  } else if (level.packed) {
    auto* bf16 = reinterpret_cast<Bf16*>(out);
    for_parts(head_dim, [&](std::size_t first, std::size_t count, float* part) {
      level.vectors->scale(q + first, factor, count, part);
      to_bf16(part, count, bf16 + first);
    });
    std::fill(bf16 + head_dim, bf16 + layout.dim, Bf16{0});
    return;
  } else {
    for (std::size_t d = 0; d < head_dim; ++d) f32[d] = round_to_bf16(q[d] * factor);
  }
  std::fill(f32 + head_dim, f32 + layout.dim, 0.0F);
}

void prepare_int8_query(const Level& level, const PageLayout& layout, const float* q,
                        std::size_t head_dim, float* scaled, std::int8_t* out, Int8Query& query) {
  level.vectors->scale(q, 1.0F / std::sqrt(static_cast<float>(head_dim)), head_dim, scaled);
  query.scale = level.integer->quantize(scaled, head_dim, layout.dim, out, 64);
  query.offset = 128 * level.vectors->sum(out, layout.dim);
  std::fill(out + layout.dim, out + int8_query_stride(layout.dim), std::int8_t{0});
}

void merge_state(const Level& level, const State& into, const State& from, std::size_t unit,
                 std::size_t dim) {
  float& m = into.m[unit];
  const float max = std::max(m, from.m[unit]);
  const float r = exp_portable(m - max), r2 = exp_portable(from.m[unit] - max);
  m = max;
  level.vectors->merge(into.l + unit * 16, from.l + unit * 16, 16, r, r2);
  level.vectors->merge(into.o + unit * dim, from.o + unit * dim, dim, r, r2);
}

void finish_unit(const Level& level, const State& state, std::size_t unit, std::size_t dim,
                 std::size_t head_dim, Compute compute, void* out) {
  float l[16];
  std::copy_n(state.l + unit * 16, 16, l);
  for (std::size_t half = 8; half != 0; half /= 2)
    for (std::size_t i = 0; i < half; ++i) l[i] += l[i + half];
  level.vectors->divide(state.o + unit * dim, l[0], head_dim, compute, out);
}

}  // namespace moesaic::attention_detail
