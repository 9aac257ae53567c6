#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "common/kernels/attention.hpp"

namespace moesaic {
namespace {

void store(const OperandOut& out, std::size_t row, std::size_t column, double y) {
  if (out.compute == Compute::kBf16)
    out.bf16(row)[column] = f32_to_bf16(static_cast<float>(y));
  else
    out.f32(row)[column] = static_cast<float>(y);
}

/// softmax(q . k_t / sqrt(head_dim)) . v over `tokens` keys, all in double.
template <class Key, class Value>
void attend(const float* q, std::size_t tokens, std::size_t head_dim, Key key, Value value,
            const OperandOut& out, std::size_t row, std::size_t column) {
  std::vector<double> p(tokens);
  const double scale = 1 / std::sqrt(static_cast<double>(head_dim));
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t d = 0; d < head_dim; ++d) p[t] += q[d] * scale * key(t, d);
  const double max = *std::max_element(p.begin(), p.end());
  double sum = 0;
  for (double& x : p) sum += x = std::exp(x - max);
  for (std::size_t d = 0; d < head_dim; ++d) {
    double y = 0;
    for (std::size_t t = 0; t < tokens; ++t) y += p[t] * value(t, d);
    store(out, row, column + d, y / sum);
  }
}

/// Scale i of an int8 page: 64 of keys, then 64 of values.
float page_scale(const AttentionShape& shape, const std::byte* page, std::size_t i) {
  return reinterpret_cast<const float*>(page + 2 * kPageTokens * shape.padded_dim())[i];
}

/// Element d of the key or value of a token, read from a page by the layout in the header.
double page_key(const AttentionShape& shape, const std::byte* page, std::size_t t, std::size_t d) {
  if (shape.kv == Compute::kInt) {
    const auto raised = std::to_integer<int>(page[(d / 4 * kPageTokens + t) * 4 + d % 4]);
    return double{page_scale(shape, page, t)} * (raised - 128);
  }
  if (shape.kv == Compute::kF32) return reinterpret_cast<const float*>(page)[d * kPageTokens + t];
  return bf16_to_f32(reinterpret_cast<const Bf16*>(page)[(d / 2 * kPageTokens + t) * 2 + d % 2]);
}

double page_value(const AttentionShape& shape, const std::byte* page, std::size_t t,
                  std::size_t d) {
  const std::size_t dim = shape.padded_dim();
  const std::byte* values = page + kPageTokens * dim * operand_bytes(shape.kv);
  if (shape.kv == Compute::kF32) return reinterpret_cast<const float*>(values)[t * dim + d];
  const std::size_t d0 = d / 64 * 64, width = std::min<std::size_t>(64, dim - d0);
  if (shape.kv == Compute::kInt)
    return double{page_scale(shape, page, kPageTokens + t)} *
           reinterpret_cast<const std::int8_t*>(
               values)[d0 * kPageTokens + (t / 4 * width + d - d0) * 4 + t % 4];
  return bf16_to_f32(reinterpret_cast<const Bf16*>(
      values)[d0 * kPageTokens + (t / 2 * width + d - d0) * 2 + t % 2]);
}

}  // namespace

void attention_ref(const AttentionShape& shape, const AttentionTask& task) {
  assert(task.angles.cos == nullptr);
  const std::size_t group = shape.heads / shape.kv_heads;
  for (std::size_t r = 0; r < task.rows; ++r)
    for (std::size_t h = 0; h < shape.heads; ++h) {
      const std::byte* const* pages = task.pages + h / group * task.page_stride;
      const auto key = [&](std::size_t t, std::size_t d) {
        return page_key(shape, pages[t / kPageTokens], t % kPageTokens, d);
      };
      const auto value = [&](std::size_t t, std::size_t d) {
        return page_value(shape, pages[t / kPageTokens], t % kPageTokens, d);
      };
      attend(task.q + r * task.q_stride + h * shape.head_dim, task.first_position + r + 1,
             shape.head_dim, key, value, task.out, r, h * shape.head_dim);
    }
}

void attention_vision_ref(const float* qkv, std::size_t patches, std::size_t heads,
                          std::size_t head_dim, const OperandOut& out) {
  const auto at = [&](std::size_t patch, std::size_t which, std::size_t head) {
    return qkv + ((patch * 3 + which) * heads + head) * head_dim;
  };
  for (std::size_t r = 0; r < patches; ++r)
    for (std::size_t h = 0; h < heads; ++h)
      attend(
          at(r, 0, h), patches, head_dim,
          [&](std::size_t t, std::size_t d) { return at(t, 1, h)[d]; },
          [&](std::size_t t, std::size_t d) { return at(t, 2, h)[d]; }, out, r, h * head_dim);
}

}  // namespace moesaic
