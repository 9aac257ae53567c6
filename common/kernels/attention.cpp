#include "common/kernels/attention.hpp"

#include <algorithm>
#include <cassert>
#include <vector>

#include "common/base/aligned_buffer.hpp"
#include "common/kernels/cpu/attention_impl.hpp"

namespace moesaic {
namespace {

using namespace attention_detail;

PageLayout page_layout(const AttentionShape& shape) {
  return {shape.kv, shape.padded_dim(), kPageTokens};
}

std::size_t segments_of(std::size_t tokens) {
  constexpr std::size_t kSegment = kPageTokens * kPagesPerSegment;
  return (tokens + kSegment - 1) / kSegment;
}

/// Some units of one task and KV head: unit i is query head i % group of row i / group.
struct Block {
  const AttentionTask* task = nullptr;
  std::size_t kv_head = 0;
  std::size_t first_unit = 0;
  std::size_t units = 0;
  std::size_t segments = 0;  ///< of the block's last row
};

std::size_t visible_tokens(const AttentionTask& task, std::size_t row) {
  return task.first_position + row + 1;
}

/// The blocks of one KV head, the most expensive (last rows) first.
void add_blocks(const AttentionShape& shape, const AttentionTask& task, std::size_t kv_head,
                std::vector<Block>& blocks) {
  const std::size_t group = shape.heads / shape.kv_heads, units = task.rows * group;
  for (std::size_t end = units; end > 0;) {
    const std::size_t first = (end - 1) / kBlockUnits * kBlockUnits;
    const std::size_t tokens = visible_tokens(task, (end - 1) / group);
    blocks.push_back({&task, kv_head, first, end - first, segments_of(tokens)});
    end = first;
  }
}

/// A thread's memory for one block: queries, visible counts, two states, the pages' scratch.
struct Workspace {
  std::byte* q = nullptr;
  Int8Query* query = nullptr;
  std::size_t* visible = nullptr;
  float* state = nullptr;
  float* next = nullptr;
  std::byte* scratch = nullptr;

  explicit Workspace(const PageLayout& layout) {
    thread_local AlignedBuffer memory;
    const std::size_t queries = kBlockUnits * layout.dim * sizeof(float);
    const std::size_t states = State::floats(kBlockUnits, layout.dim) * sizeof(float);
    const std::size_t counts = kBlockUnits * (sizeof(std::size_t) + sizeof(Int8Query));
    memory.reserve(queries + 2 * states + counts + scratch_bytes(layout));
    q = memory.data();
    state = reinterpret_cast<float*>(q + queries);
    next = reinterpret_cast<float*>(q + queries + states);
    visible = reinterpret_cast<std::size_t*>(q + queries + 2 * states);
    query = reinterpret_cast<Int8Query*>(visible + kBlockUnits);
    scratch = q + queries + 2 * states + counts;
  }
};

/// Computes the states of segments of a block.
struct BlockRunner {
  const Level& level;
  const AttentionShape& shape;
  const Block& block;
  const PageLayout layout;
  const Workspace space;

  BlockRunner(const Level& l, const AttentionShape& s, const Block& b)
      : level(l), shape(s), block(b), layout(page_layout(s)), space(layout) {}

  std::size_t group() const { return shape.heads / shape.kv_heads; }
  std::size_t row(std::size_t u) const { return (block.first_unit + u) / group(); }
  std::size_t head(std::size_t u) const {
    return block.kv_head * group() + (block.first_unit + u) % group();
  }

  void fetch_query(const float* q) const {
    for (std::size_t d = 0; d < shape.head_dim; d += 16) __builtin_prefetch(q + d, 0, 3);
  }

  void prepare() const {
    constexpr std::size_t kRowsAhead = 2;
    const AttentionTask& task = *block.task;
    const bool packed = level.packed && shape.kv == Compute::kBf16;
    const std::size_t bytes = layout.dim * (packed ? sizeof(Bf16) : sizeof(float));
    auto* const scratch = reinterpret_cast<float*>(space.scratch);
    for (std::size_t u = 0; u < block.units; ++u) {
      const float* q = task.q + row(u) * task.q_stride + head(u) * shape.head_dim;
      if (u + kRowsAhead * group() < block.units) fetch_query(q + kRowsAhead * task.q_stride);
      const RopeAngles angles = task.angles.from(row(u), shape.head_dim);
      if (angles.cos != nullptr) {
        level.vectors->turn(q, angles.cos, angles.sin, shape.head_dim, scratch);
        q = scratch;
      }
      if (shape.kv == Compute::kInt)
        prepare_int8_query(
            level, layout, q, shape.head_dim, scratch,
            reinterpret_cast<std::int8_t*>(space.q) + u * int8_query_stride(layout.dim),
            space.query[u]);
      else
        prepare_query(level, layout, q, shape.head_dim, space.q + u * bytes);
      space.visible[u] = visible_tokens(task, row(u));
    }
  }

  std::size_t known_pages() const {
    return (space.visible[block.units - 1] + kPageTokens - 1) / kPageTokens;
  }
  const std::byte* const* pages() const {
    return block.task->pages + block.kv_head * block.task->page_stride;
  }

  /// @param last the segment before which this thread goes on
  State segment(std::size_t s, std::size_t last, float* memory) const {
    PageRun run;
    run.layout = layout;
    run.pages = pages();
    run.first_page = s * kPagesPerSegment;
    run.units = block.units;
    run.q = space.q;
    run.query = space.query;
    run.visible = space.visible;
    run.known_pages = std::min(known_pages(), last * kPagesPerSegment);
    run.last_page = std::min(run.first_page + kPagesPerSegment, run.known_pages);
    run.state = State::in(memory, block.units, layout.dim);
    run.scratch = space.scratch;
    run_pages(level, run);
    return run.state;
  }

  void merge(const State& into, const State& from) const {
    for (std::size_t u = 0; u < block.units; ++u) merge_state(level, into, from, u, layout.dim);
  }

  void finish(const State& state) const {
    const OperandOut& out = block.task->out;
    for (std::size_t u = 0; u < block.units; ++u) {
      const std::size_t column = head(u) * shape.head_dim;
      void* y = out.compute == Compute::kBf16 ? static_cast<void*>(out.bf16(row(u)) + column)
                                              : out.f32(row(u)) + column;
      finish_unit(level, state, u, layout.dim, shape.head_dim, out.compute, y);
    }
  }

  /// Prepares the queries, and meanwhile a single tile's first page comes.
  void begin(std::size_t first_segment) const {
    if (shape.kv == Compute::kInt && block.units <= kTileUnits)
      fetch_page(layout, pages()[first_segment * kPagesPerSegment]);
    prepare();
  }

  void whole() const {
    begin(0);
    const State state = segment(0, block.segments, space.state);
    for (std::size_t s = 1; s < block.segments; ++s)
      merge(state, segment(s, block.segments, space.next));
    finish(state);
  }
};

/// Segments of a block that one thread computes one after the other.
struct Part {
  const Block* block = nullptr;
  std::size_t first_segment = 0;
  std::size_t last_segment = 0;
  std::size_t offset = 0;  ///< of the first one's state, in floats
};

/// Runs of segments are long enough for their first pages, which nothing fetched in time, to weigh
/// little, and many enough for all threads to end together.
std::size_t part_segments(const std::vector<Block>& blocks, std::size_t threads) {
  constexpr std::size_t kLongest = 4, kPartsAThread = 8;
  std::size_t segments = 0;
  for (const Block& block : blocks) segments += block.segments;
  return std::clamp<std::size_t>(segments / (threads * kPartsAThread), 1, kLongest);
}

/// Few blocks and long contexts: parts of blocks are tasks of their own, then each block is merged
/// in the order that `BlockRunner::whole` uses.
void run_by_segments(const Level& level, const AttentionShape& shape,
                     const std::vector<Block>& blocks, ThreadPool& pool) {
  thread_local std::vector<Part> parts;
  thread_local std::vector<std::size_t> first_state;
  thread_local AlignedBuffer states;
  parts.clear();
  first_state.clear();
  const std::size_t length = part_segments(blocks, pool.size());
  std::size_t floats = 0;
  for (const Block& block : blocks) {
    const std::size_t size = State::floats(block.units, shape.padded_dim());
    first_state.push_back(floats);
    for (std::size_t s = 0; s < block.segments; s += length)
      parts.push_back({&block, s, std::min(s + length, block.segments), floats + s * size});
    floats += block.segments * size;
  }
  states.reserve(floats * sizeof(float));
  // The workers must see this thread's lists, not their own.
  const Part* const all = parts.data();
  const std::size_t* const firsts = first_state.data();
  auto* const memory = reinterpret_cast<float*>(states.data());
  pool.parallel_for(parts.size(), [&](std::size_t i) {
    const Part& part = all[i];
    const BlockRunner runner(level, shape, *part.block);
    runner.begin(part.first_segment);
    const std::size_t size = State::floats(part.block->units, shape.padded_dim());
    for (std::size_t s = part.first_segment; s < part.last_segment; ++s)
      runner.segment(s, part.last_segment, memory + part.offset + (s - part.first_segment) * size);
  });
  pool.parallel_for(blocks.size(), [&](std::size_t b) {
    const BlockRunner runner(level, shape, blocks[b]);
    const std::size_t size = State::floats(blocks[b].units, shape.padded_dim());
    const auto state_of = [&](std::size_t s) {
      return State::in(memory + firsts[b] + s * size, blocks[b].units, shape.padded_dim());
    };
    for (std::size_t s = 1; s < blocks[b].segments; ++s) runner.merge(state_of(0), state_of(s));
    runner.finish(state_of(0));
  });
}

void check(const AttentionShape& shape) {
  assert(shape.head_dim > 0 && shape.head_dim % 8 == 0);
  assert(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0);
  static_cast<void>(shape);
}

template <Isa kIsa>
void attention_at(const AttentionShape& shape, const AttentionTask& task, std::size_t first_kv_head,
                  std::size_t last_kv_head) {
  check(shape);
  const Level& level = level_for(kIsa);
  std::vector<Block> blocks;
  for (std::size_t h = first_kv_head; h < last_kv_head; ++h) add_blocks(shape, task, h, blocks);
  for (const Block& block : blocks) BlockRunner(level, shape, block).whole();
}

}  // namespace

void append_kv(const AttentionShape& shape, std::byte* page, std::size_t token, const float* k,
               const float* v) {
  static const Level& level = level_for(active_isa());
  store_kv(level, page_layout(shape), page, token, k, v, shape.head_dim);
}

void append_kv(const AttentionShape& shape, std::byte* const* pages, std::size_t token,
               const KvRows& rows) {
  static const Level& level = level_for(active_isa());
  store_kv_rows(level, page_layout(shape), pages, token, rows, shape.kv_heads, shape.head_dim);
}

AttentionFn attention_for(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return attention_at<Isa::kScalar>;
    case Isa::kAvx2:
      return attention_at<Isa::kAvx2>;
    case Isa::kAvx512:
      return attention_at<Isa::kAvx512>;
    case Isa::kAmx:
      return attention_at<Isa::kAmx>;
    case Isa::kAvx512Bf16:
      return attention_at<Isa::kAvx512Bf16>;
  }
  return attention_at<Isa::kScalar>;
}

void attention(const AttentionShape& shape, std::span<const AttentionTask> tasks,
               ThreadPool& pool) {
  check(shape);
  static const Level& level = level_for(active_isa());
  thread_local std::vector<Block> blocks;
  blocks.clear();
  for (const AttentionTask& task : tasks)
    for (std::size_t h = 0; h < shape.kv_heads; ++h) add_blocks(shape, task, h, blocks);
  const bool long_context =
      std::any_of(blocks.begin(), blocks.end(), [](const Block& b) { return b.segments > 1; });
  if (long_context && pool.size() > 1 && blocks.size() < 4 * pool.size())
    return run_by_segments(level, shape, blocks, pool);
  const Block* const all = blocks.data();
  pool.parallel_for(blocks.size(),
                    [&](std::size_t i) { BlockRunner(level, shape, all[i]).whole(); });
}

}  // namespace moesaic
