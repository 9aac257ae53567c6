#include "common/kernels/cpu/integer_level.hpp"

#include <array>
#include <atomic>

#include "common/base/aligned_buffer.hpp"

namespace moesaic::cpu {
namespace {

struct Setting {
  std::atomic<std::size_t> panels{Streams{}.panels};
  std::atomic<std::size_t> ahead{Streams{}.ahead};
  std::atomic<bool> into_l2{Streams{}.into_l2};
};
std::array<Setting, 2> settings;

Setting& setting(StreamsOf of) { return settings[static_cast<std::size_t>(of)]; }

}  // namespace

Streams streams(StreamsOf of) {
  const Setting& from = setting(of);
  return {from.panels.load(std::memory_order_relaxed), from.ahead.load(std::memory_order_relaxed),
          from.into_l2.load(std::memory_order_relaxed)};
}

void set_streams(StreamsOf of, Streams streams) {
  Setting& to = setting(of);
  to.panels.store(streams.panels, std::memory_order_relaxed);
  to.ahead.store(streams.ahead, std::memory_order_relaxed);
  to.into_l2.store(streams.into_l2, std::memory_order_relaxed);
}

std::byte* integer_scratch(std::size_t bytes) {
  thread_local AlignedBuffer buffer;
  buffer.reserve(bytes);
  return buffer.data();
}

}  // namespace moesaic::cpu
