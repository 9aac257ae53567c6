#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/base/thread_pool.hpp"
#include "common/kernels/compute.hpp"
#include "common/kernels/isa.hpp"

namespace moesaic {

inline constexpr std::size_t kPageTokens = 64;
inline constexpr std::size_t kPagesPerSegment = 16;

/// Shape of the paged attention of one model. A page holds 64 tokens of one layer and one KV head.
/// D = head_dim padded to 16 with zeros.
///   int8 page: keys u8 (value + 128) [D/4 quads of d][64 tokens][4], then values int8 [parts of
///              64 d, the last D % 64 wide][16 token quads][d][4], then f32 [64] scales of the keys
///              and [64] of the values: the largest magnitude / 127 of that token's vector
///   bf16 page: keys [D/2 pairs of d][64 tokens][2], then values [parts][32 token pairs][d][2]
///   f32 page:  keys [D][64 tokens], then values [64 tokens][D]
struct AttentionShape {
  Compute kv = Compute::kBf16;
  std::size_t heads = 0;
  std::size_t kv_heads = 0;
  std::size_t head_dim = 0;

  std::size_t padded_dim() const { return (head_dim + 15) / 16 * 16; }
  std::size_t page_bytes() const {
    const std::size_t values = 2 * kPageTokens * padded_dim() * operand_bytes(kv);
    return values + (kv == Compute::kInt ? 2 * kPageTokens * sizeof(float) : 0);
  }
};

/// Stores one token's key and value vector of one KV head at slot `token` (0..63) of a page,
/// interleaved; padding of d is written zero.
/// @param k, v [head_dim] f32 (k rotated); rounded to bf16 for a bf16 page, quantised for an int8
///             one as `quantize_block` does, the vector being one block
void append_kv(const AttentionShape& shape, std::byte* page, std::size_t token, const float* k,
               const float* v);

/// Cosines and sines of rows, [rows][head_dim / 2] each, or null: vectors are turned already.
struct RopeAngles {
  const float* cos = nullptr;
  const float* sin = nullptr;

  RopeAngles from(std::size_t row, std::size_t head_dim) const {
    if (cos == nullptr) return {};
    return {cos + row * (head_dim / 2), sin + row * (head_dim / 2)};
  }
};

/// Keys and values of consecutive tokens, all KV heads: row r at + r * stride,
/// [kv_heads][head_dim].
struct KvRows {
  const float* k = nullptr;  ///< turned by `rope_text` with the angles
  const float* v = nullptr;
  std::size_t stride = 0;
  std::size_t rows = 0;
  RopeAngles angles;
};

/// `append_kv` of rows at slots `token` .. `token` + rows - 1 (at most 63) of a page of each KV
/// head. Threads may store different rows of a page at once.
/// @param pages [kv_heads]
void append_kv(const AttentionShape& shape, std::byte* const* pages, std::size_t token,
               const KvRows& rows);

/// Query rows of one sequence: consecutive positions first_position .. first_position + rows - 1,
/// their keys and values already appended.
struct AttentionTask {
  const float* q = nullptr;  ///< row r at q + r * q_stride: [heads, head_dim] f32
  std::size_t q_stride = 0;
  RopeAngles angles;  ///< of the rows, by which `rope_text` is to turn q
  std::size_t rows = 0;
  std::size_t first_position = 0;  ///< index in the sequence, not the 3-D position
  const std::byte* const* pages =
      nullptr;  ///< [kv_heads][page_stride]: page i of KV head h is pages[h * page_stride + i]
  std::size_t page_stride = 0;
  OperandOut out;  ///< row r: [heads * head_dim] in out.compute (bf16: rounded)
};

/// Causal attention over paged KV: segments of 16 pages from position 0, each from a fresh state
/// (m = -1e30, l[16] = 0, o = 0), pages ascending; per page, for a row's query of one head:
///   S_t = dot(q * (1 / sqrt(head_dim)), k_t);   if max S_t > m:  l, o *= exp(m - max), m = max
///   p_t = exp(S_t - m), 0 for t beyond the row;  l[t % 16] += p_t;  o_d += dot(p, V_d)
/// Segments are merged ascending: both states are rescaled to the larger m, then l and o are added.
/// out = o / (l folded by halves 8, 4, 2, 1).
///   bf16 pages: the scaled q and p (in o only) are rounded to bf16; dots in the order of
///   TDPBF16PS with S = 0 and o as C (at level kAvx512Bf16 vdpbf16ps); denormals count as zero
///   within a segment.   f32 pages: nothing is rounded, a dot is one fma chain from +0.
///   int8 pages: the scaled q is quantised, qs = max |q| / 127, and with exact integer dots
///     S_t = float(q . k_t) * (qs * ks_t);   pm = max(1e-30, max over the page of p_t * vs_t)
///     P_t = round_even(p_t * vs_t * (255 / pm));   o_d = fma(float(dot(P, V_d)), pm / 255, o_d)
///   Where q, or a key or value a row sees, is not finite, that row is NaN, and no other.
/// A row's result depends on that row and the cache only: not on chunking, batch, thread count or
/// which kernel ran. What lies in a page beyond the last row is never seen, NaN included. Work is
/// split over the pool by (task, KV head, row block), with few rows also by segments.
/// @pre heads is a multiple of kv_heads, head_dim of 8; asserted
void attention(const AttentionShape& shape, std::span<const AttentionTask> tasks, ThreadPool& pool);

/// Full (bidirectional) attention inside one frame of the vision tower; keys in blocks of 256 from
/// the frame's first patch.
/// @param qkv    [patches][3][heads][head_dim] f32; q and k are turned by `rope_vision` first, at
///               some levels in place
/// @param angles of each patch; null: q and k are turned already
/// @param out    [patches][heads * head_dim]
void attention_vision(float* qkv, const RopeAngles& angles, std::size_t patches, std::size_t heads,
                      std::size_t head_dim, const OperandOut& out, ThreadPool& pool);

/// One task on the calling thread at one level, and the plain f64 versions (of turned q): for
/// tests.
using AttentionFn = void (*)(const AttentionShape&, const AttentionTask&, std::size_t first_kv_head,
                             std::size_t last_kv_head);
AttentionFn attention_for(Isa isa);
using AttentionVisionFn = void (*)(float* qkv, const RopeAngles& angles, std::size_t patches,
                                   std::size_t heads, std::size_t head_dim, const OperandOut& out,
                                   ThreadPool& pool);
AttentionVisionFn attention_vision_for(Isa isa);
void attention_ref(const AttentionShape& shape, const AttentionTask& task);
void attention_vision_ref(const float* qkv, std::size_t patches, std::size_t heads,
                          std::size_t head_dim, const OperandOut& out);

}  // namespace moesaic
