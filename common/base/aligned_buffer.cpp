#include "common/base/aligned_buffer.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace moesaic {
namespace {

constexpr std::size_t kAlign = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kMapFrom = 2 * kHugePage;
constexpr std::size_t kMapScratchFrom = std::size_t{256} << 10;

// A sanitizer finds a use after free only in memory that was freed.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kKeepBlocks = false;
#else
constexpr bool kKeepBlocks = true;
#endif

// Buffers of other thread-local objects may outlive the cache.
thread_local bool cache_alive = true;

/// Blocks freed by this thread, per power of two. The C library's own cache ends at 1 KiB, and its
/// aligned_alloc does not use it: that costs more than copying an activation.
class BlockCache {
 public:
  static constexpr std::size_t kLargest = std::size_t{64} << 10;

  ~BlockCache() {
    cache_alive = false;
    for (auto& shelf : shelves_)
      for (std::size_t i = 0; i < shelf.count; ++i) std::free(shelf.blocks[i]);
  }
  /// Null: none is there.
  void* take(std::size_t bytes) {
    if (!kKeepBlocks || !cache_alive) return nullptr;
    auto& shelf = shelves_[index(bytes)];
    return shelf.count > 0 ? shelf.blocks[--shelf.count] : nullptr;
  }
  /// False: no room.
  bool put(void* block, std::size_t bytes) {
    if (!kKeepBlocks || !cache_alive) return false;
    auto& shelf = shelves_[index(bytes)];
    // About 64 KiB of each size, two blocks at least.
    if (shelf.count >= std::clamp<std::size_t>(kLargest / bytes, 2, kMost)) return false;
    shelf.blocks[shelf.count++] = block;
    return true;
  }

 private:
  static constexpr std::size_t kMost = 16;
  struct Shelf {
    std::array<void*, kMost> blocks;
    std::size_t count = 0;
  };
  static std::size_t index(std::size_t bytes) {
    return static_cast<std::size_t>(std::bit_width(bytes / kAlign / 2));
  }
  std::array<Shelf, std::bit_width(kLargest / kAlign)> shelves_;
};
thread_local BlockCache block_cache;

std::pair<std::byte*, AlignedRelease> take_block(std::size_t bytes) {
  if (bytes <= BlockCache::kLargest) {
    bytes = std::max(std::bit_ceil(bytes), kAlign);
    if (void* block = block_cache.take(bytes)) return {static_cast<std::byte*>(block), {bytes}};
  } else {
    bytes = (bytes + kAlign - 1) / kAlign * kAlign;
  }
  void* block = std::aligned_alloc(kAlign, bytes);
  if (block == nullptr) throw std::bad_alloc();
  return {static_cast<std::byte*>(block), {bytes}};
}

std::pair<std::byte*, AlignedRelease> map_pages(std::size_t bytes) {
  const std::size_t rounded = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  // Over-map and trim, so that the region starts on a huge page; the kernel hands out zeros.
  void* raw = ::mmap(nullptr, rounded + kHugePage, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) throw std::bad_alloc();
  const auto start = reinterpret_cast<std::uintptr_t>(raw);
  const auto aligned = (start + kHugePage - 1) / kHugePage * kHugePage;
  if (aligned > start) ::munmap(raw, aligned - start);
  const auto tail = start + rounded + kHugePage - (aligned + rounded);
  if (tail > 0) ::munmap(reinterpret_cast<void*>(aligned + rounded), tail);
  ::madvise(reinterpret_cast<void*>(aligned), rounded, MADV_HUGEPAGE);
  return {reinterpret_cast<std::byte*>(aligned), {rounded, true}};
}

}  // namespace

AlignedBuffer AlignedBuffer::uninitialized(std::size_t bytes) {
  AlignedBuffer buffer;
  if (bytes == 0) return buffer;
  const auto [data, release] = bytes >= kMapFrom ? map_pages(bytes) : take_block(bytes);
  buffer.data_ = {data, release};
  buffer.bytes_ = bytes;
  return buffer;
}

AlignedBuffer AlignedBuffer::scratch(std::size_t bytes) {
  // More address space than asked for; only what is written takes memory.
  return AlignedBuffer(bytes < kMapScratchFrom ? bytes : std::max(bytes, kMapFrom));
}

AlignedBuffer::AlignedBuffer(std::size_t bytes) : AlignedBuffer(uninitialized(bytes)) {
  if (bytes > 0 && bytes < kMapFrom) std::memset(data(), 0, bytes);
}

void AlignedRelease::operator()(std::byte* p) const {
  if (mapped) {
    ::munmap(p, bytes);
  } else if (bytes > BlockCache::kLargest || !block_cache.put(p, bytes)) {
    std::free(p);
  }
}

}  // namespace moesaic
