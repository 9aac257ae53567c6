// Input: one byte that chooses the parser, then an answer of etcd's gateway. What a parser accepts
// keeps its promises; a stored placement comes back the same.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "common/cluster/etcd_messages.hpp"

namespace etcd = moesaic::cluster::etcd;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'g':
      if (const auto lease = etcd::parse_grant(text);
          lease && (lease->id == 0 || lease->ttl_s <= 0))
        std::abort();
      break;
    case 'k':
      (void)etcd::parse_keepalive(text);
      break;
    case 'r':
      if (const auto range = etcd::parse_range(text); range && range->revision <= 0) std::abort();
      break;
    case 't':
      if (const auto txn = etcd::parse_txn(text); txn && txn->revision <= 0) std::abort();
      break;
    case 'w':
      (void)etcd::parse_watch_line(text);
      break;
    default:
      if (const auto placement = etcd::parse_stored_placement(text)) {
        const auto again = etcd::parse_stored_placement(etcd::format_stored_placement(*placement));
        if (placement->epoch == 0 || !again || again->epoch != placement->epoch ||
            again->term != placement->term || again->yaml != placement->yaml)
          std::abort();
      }
  }
  return 0;
}
