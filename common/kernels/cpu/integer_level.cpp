#include "common/kernels/cpu/integer_level.hpp"

#include <atomic>

#include "common/base/aligned_buffer.hpp"

namespace moesaic::cpu {
namespace {

std::atomic<std::size_t> panels{Streams{}.panels};
std::atomic<std::size_t> ahead{Streams{}.ahead};

}  // namespace

Streams streams() {
  return {panels.load(std::memory_order_relaxed), ahead.load(std::memory_order_relaxed)};
}

void set_streams(Streams chosen) {
  panels.store(chosen.panels, std::memory_order_relaxed);
  ahead.store(chosen.ahead, std::memory_order_relaxed);
}

std::byte* integer_scratch(std::size_t bytes) {
  thread_local AlignedBuffer buffer;
  buffer.reserve(bytes);
  return buffer.data();
}

}  // namespace moesaic::cpu
