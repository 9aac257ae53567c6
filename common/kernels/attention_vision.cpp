#include <algorithm>
#include <cassert>
#include <cstring>
#include <vector>

#include "common/base/aligned_buffer.hpp"
#include "common/kernels/attention.hpp"
#include "common/kernels/cpu/attention_impl.hpp"
#include "common/kernels/cpu/attention_vision_amx.hpp"
#include "common/kernels/elementwise.hpp"
#include "common/kernels/rope.hpp"

namespace moesaic {
namespace {

using namespace attention_detail;

/// Heads whose keys and values a task packs.
constexpr std::size_t kHeadGroup = 4;
constexpr std::size_t kQueryBlock = 32 * kTileUnits;

/// q, k and v of one head in [patches][3][heads][head_dim].
struct Packed {
  const float* qkv;
  std::size_t heads;
  std::size_t head_dim;

  const float* at(std::size_t patch, std::size_t which, std::size_t head) const {
    return qkv + ((patch * 3 + which) * heads + head) * head_dim;
  }
};

/// Two keys and two values to their places in a bf16 block, as `store_kv` writes them one by one.
void store_pair(const PageLayout& layout, std::byte* block, std::size_t t, const Bf16* k0,
                const Bf16* k1, const Bf16* v0, const Bf16* v1) {
  std::byte* key = block + t / kRun * kRun * layout.dim * sizeof(Bf16) + t % kRun * 4;
  for (std::size_t d = 0; d < layout.dim; d += 2, key += kRun * 4) {
    std::memcpy(key, k0 + d, 4);
    std::memcpy(key + 4, k1 + d, 4);
  }
  auto* const values = reinterpret_cast<Bf16*>(block + layout.values_offset());
  for (std::size_t d0 = 0; d0 < layout.dim; d0 += kRun) {
    const std::size_t width = layout.part_width(d0);
    Bf16* const value = values + d0 * layout.tokens + t * width;
    for (std::size_t d = 0; d < width; ++d) {
      value[2 * d] = v0[d0 + d];
      value[2 * d + 1] = v1[d0 + d];
    }
  }
}

/// Asks for the q, k or v (`which`) of some heads of a patch, which stand side by side.
void fetch_vectors(const Packed& in, std::size_t patch, std::size_t which, std::size_t head,
                   std::size_t heads) {
  const float* from = in.at(patch, which, head);
  for (std::size_t i = 0; i < heads * in.head_dim; i += 16) __builtin_prefetch(from + i);
}

/// Fills the blocks of keys first .. first + count - 1 of some heads; blocks[h] is that of head
/// first_head + h. A patch's heads stand side by side, so they are read in turn.
void fill_blocks(const Level& level, const PageLayout& layout, const Packed& in,
                 std::size_t first_head, std::size_t heads, std::size_t first, std::size_t count,
                 std::byte* const* blocks, std::size_t pitch) {
  constexpr std::size_t kAhead = 4;
  if (count < layout.tokens)
    for (std::size_t h = 0; h < heads; ++h)
      std::fill_n(blocks[h * pitch], layout.bytes(), std::byte{0});
  thread_local std::vector<Bf16> rounded;
  rounded.assign(4 * layout.dim, 0);
  Bf16* row[4];
  for (std::size_t i = 0; i < 4; ++i) row[i] = rounded.data() + i * layout.dim;
  for (std::size_t t = 0; t < count; t += 2) {
    for (std::size_t i = 0; i < 4 && t + kAhead + 1 < count; ++i)
      fetch_vectors(in, first + t + kAhead + i % 2, 1 + i / 2, first_head, heads);
    for (std::size_t h = 0; h < heads; ++h) {
      const std::size_t head = first_head + h;
      if (layout.kv != Compute::kBf16) {
        for (std::size_t i = t; i < std::min(t + 2, count); ++i)
          store_kv(level, layout, blocks[h * pitch], i, in.at(first + i, 1, head),
                   in.at(first + i, 2, head), in.head_dim);
        continue;
      }
      for (std::size_t i = 0; i < 4; ++i) {
        if (t + i % 2 < count)
          to_bf16(in.at(first + t + i % 2, 1 + i / 2, head), in.head_dim, row[i]);
        else
          std::fill_n(row[i], in.head_dim, Bf16{0});
      }
      store_pair(layout, blocks[h * pitch], t, row[0], row[1], row[2], row[3]);
    }
  }
}

void attend(const Level& level, const PageLayout& layout, const Packed& in, std::size_t head,
            std::size_t first, std::size_t patches, const std::byte* const* blocks,
            const OperandOut& out) {
  const std::size_t units = std::min(kQueryBlock, patches - first);
  const bool packed = level.packed && layout.kv == Compute::kBf16;
  const std::size_t query = layout.dim * (packed ? sizeof(Bf16) : sizeof(float));
  const std::size_t floats = State::floats(kQueryBlock, layout.dim);
  const std::size_t state_offset = kQueryBlock * layout.dim * sizeof(float);
  thread_local AlignedBuffer memory;
  memory.reserve(state_offset + floats * sizeof(float) + scratch_bytes(layout));
  std::size_t visible[kQueryBlock];
  std::fill_n(visible, units, patches);
  for (std::size_t u = 0; u < units; ++u) {
    if (u + 4 < units) fetch_vectors(in, first + u + 4, 0, head, 1);
    prepare_query(level, layout, in.at(first + u, 0, head), in.head_dim, memory.data() + u * query);
  }

  PageRun run;
  run.layout = layout;
  run.pages = blocks;
  run.last_page = run.known_pages = (patches + kVisionKeyBlock - 1) / kVisionKeyBlock;
  run.units = units;
  run.q = memory.data();
  run.visible = visible;
  run.state = State::in(reinterpret_cast<float*>(memory.data() + state_offset), units, layout.dim);
  run.scratch = memory.data() + state_offset + floats * sizeof(float);
  run.slack = kVisionSlack;
  run_pages(level, run);
  for (std::size_t u = 0; u < units; ++u) {
    const std::size_t column = head * in.head_dim;
    void* y = out.compute == Compute::kBf16 ? static_cast<void*>(out.bf16(first + u) + column)
                                            : out.f32(first + u) + column;
    finish_unit(level, run.state, u, layout.dim, in.head_dim, out.compute, y);
  }
}

/// q heads, then k heads: 2 * heads consecutive vectors of a patch turn alike.
void turn(float* qkv, const RopeAngles& angles, std::size_t patches, std::size_t heads,
          std::size_t head_dim, ThreadPool& pool) {
  constexpr std::size_t kBlock = 8;
  pool.parallel_for((patches + kBlock - 1) / kBlock, [&](std::size_t block) {
    for (std::size_t p = block * kBlock; p < std::min(patches, (block + 1) * kBlock); ++p)
      rope_vision(qkv + p * 3 * heads * head_dim, 2 * heads, head_dim,
                  angles.cos + p * head_dim / 2, angles.sin + p * head_dim / 2);
  });
}

void run_vision(const Level& level, const float* qkv, std::size_t patches, std::size_t heads,
                std::size_t head_dim, const OperandOut& out, ThreadPool& pool) {
  assert(head_dim > 0 && head_dim % 8 == 0);
  const PageLayout layout{out.compute, (head_dim + 15) / 16 * 16, kVisionKeyBlock};
  const Packed in{qkv, heads, head_dim};
  const std::size_t per_head = (patches + kVisionKeyBlock - 1) / kVisionKeyBlock;
  thread_local AlignedBuffer memory;
  thread_local std::vector<std::byte*> block_list;
  memory.reserve(heads * per_head * layout.bytes());
  block_list.resize(heads * per_head);
  std::byte** const blocks = block_list.data();
  for (std::size_t i = 0; i < heads * per_head; ++i) blocks[i] = memory.data() + i * layout.bytes();
  const std::size_t head_groups = (heads + kHeadGroup - 1) / kHeadGroup;
  pool.parallel_for(head_groups * per_head, [&](std::size_t i) {
    const std::size_t head = i % head_groups * kHeadGroup, block = i / head_groups;
    const std::size_t first = block * kVisionKeyBlock;
    fill_blocks(level, layout, in, head, std::min(kHeadGroup, heads - head), first,
                std::min(kVisionKeyBlock, patches - first), blocks + head * per_head + block,
                per_head);
  });
  const std::size_t query_blocks = (patches + kQueryBlock - 1) / kQueryBlock;
  pool.parallel_for(heads * query_blocks, [&](std::size_t i) {
    const std::size_t head = i / query_blocks;
    attend(level, layout, in, head, i % query_blocks * kQueryBlock, patches,
           blocks + head * per_head, out);
  });
}

template <Isa kIsa>
void attention_vision_at(float* qkv, const RopeAngles& angles, std::size_t patches,
                         std::size_t heads, std::size_t head_dim, const OperandOut& out,
                         ThreadPool& pool) {
  if (kIsa == Isa::kAmx && out.compute == Compute::kBf16 && head_dim <= kMostTileDim)
    return attention_vision_amx(qkv, angles, patches, heads, head_dim, out, pool);
  if (angles.cos != nullptr) turn(qkv, angles, patches, heads, head_dim, pool);
  run_vision(level_for(kIsa), qkv, patches, heads, head_dim, out, pool);
}

}  // namespace

AttentionVisionFn attention_vision_for(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return attention_vision_at<Isa::kScalar>;
    case Isa::kAvx2:
      return attention_vision_at<Isa::kAvx2>;
    case Isa::kAvx512:
      return attention_vision_at<Isa::kAvx512>;
    case Isa::kAmx:
      return attention_vision_at<Isa::kAmx>;
    case Isa::kAvx512Bf16:
      return attention_vision_at<Isa::kAvx512Bf16>;
  }
  return attention_vision_at<Isa::kScalar>;
}

void attention_vision(float* qkv, const RopeAngles& angles, std::size_t patches, std::size_t heads,
                      std::size_t head_dim, const OperandOut& out, ThreadPool& pool) {
  static const AttentionVisionFn best = attention_vision_for(active_isa());
  best(qkv, angles, patches, heads, head_dim, out, pool);
}

}  // namespace moesaic
