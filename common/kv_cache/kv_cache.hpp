#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "common/base/aligned_buffer.hpp"
#include "common/kernels/attention.hpp"

namespace moesaic {

/// Names 64 tokens of one sequence in all layers and KV heads.
using KvBlock = std::uint32_t;

/// Pages of keys and values (common/kernels/attention.hpp has their layout). Used by one engine
/// thread.
class KvCache {
 public:
  virtual ~KvCache() = default;
  /// A block nobody holds, its contents undefined; nullopt if there is none.
  virtual std::optional<KvBlock> allocate() = 0;
  virtual void release(KvBlock block) = 0;
  virtual std::byte* page(KvBlock block, std::uint32_t layer, std::uint32_t kv_head) = 0;
  /// Form and size of its pages.
  virtual const AttentionShape& shape() const = 0;
  virtual std::size_t total_blocks() const = 0;
  virtual std::size_t free_blocks() const = 0;
};

/// Blocks needed for `tokens` tokens.
constexpr std::size_t kv_blocks_for(std::size_t tokens) {
  return (tokens + kPageTokens - 1) / kPageTokens;
}

/// All blocks in one piece of memory of this process; pages are backed by the system when first
/// written.
class PagedKvCache final : public KvCache {
 public:
  /// @errors throws std::bad_alloc if the address space is not to be had
  PagedKvCache(const AttentionShape& shape, std::uint32_t layers, std::size_t blocks);

  std::optional<KvBlock> allocate() override;
  void release(KvBlock block) override;
  std::byte* page(KvBlock block, std::uint32_t layer, std::uint32_t kv_head) override;
  const AttentionShape& shape() const override { return shape_; }
  std::size_t total_blocks() const override { return blocks_; }
  std::size_t free_blocks() const override { return free_.size(); }

  /// Bytes of one block: layers * KV heads * page.
  static std::size_t block_bytes(const AttentionShape& shape, std::uint32_t layers) {
    return std::size_t{layers} * shape.kv_heads * shape.page_bytes();
  }

 private:
  AttentionShape shape_;
  std::uint32_t layers_;
  std::size_t blocks_;
  AlignedBuffer memory_;
  std::vector<KvBlock> free_;  // a stack; the block released last is warm and goes first
};

}  // namespace moesaic
