#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"

/// Requests and answers of etcd 3.4's v3 JSON gateway, as text. Keys and values travel in base64;
/// 64-bit numbers as strings; a member that is zero, false or empty is absent. Pure functions.
/// Errors of the parsers: kCorrupt (no such answer), kUnavailable (an error of etcd's, with its
/// code and text).
namespace moesaic::cluster::etcd {

struct KeyValue {
  std::string key;
  std::string value;
  std::int64_t create_revision = 0;
  std::int64_t mod_revision = 0;
  std::int64_t lease = 0;  ///< 0: none
  bool deleted = false;    ///< in a watch: the key has gone; value and create_revision are empty
};

std::string grant_request(unsigned ttl_s);
std::string lease_request(std::int64_t lease);  ///< of keepalive and revoke
struct Lease {
  std::int64_t id = 0;
  std::int64_t ttl_s = 0;  ///< 0: it has expired
};
[[nodiscard]] Result<Lease> parse_grant(std::string_view text);
[[nodiscard]] Result<Lease> parse_keepalive(std::string_view text);

/// All keys that begin with `prefix`, which is not empty.
std::string range_request(std::string_view prefix);
struct Range {
  std::int64_t revision = 0;  ///< of the whole store
  std::vector<KeyValue> found;
  const KeyValue* find(std::string_view key) const;
};
[[nodiscard]] Result<Range> parse_range(std::string_view text);

/// Puts `key` with `lease` if nobody has it; the owner is read otherwise.
std::string claim_request(std::string_view key, std::string_view value, std::int64_t lease);
/// Puts `key` if it was last changed at `mod_revision` (0: does not exist) and `guard` was created
/// at `guard_revision`; otherwise reads both.
std::string guarded_put_request(std::string_view key, std::string_view value,
                                std::int64_t mod_revision, std::string_view guard,
                                std::int64_t guard_revision);
struct TxnAnswer {
  bool succeeded = false;
  std::int64_t revision = 0;
  std::vector<KeyValue> found;  ///< by the reads of a txn that did not succeed
  const KeyValue* find(std::string_view key) const;
};
[[nodiscard]] Result<TxnAnswer> parse_txn(std::string_view text);

/// Changes of all keys that begin with `prefix`, from `start_revision` on.
std::string watch_request(std::string_view prefix, std::int64_t start_revision);
struct WatchLine {
  bool canceled = false;              ///< nothing more will come
  std::int64_t compact_revision = 0;  ///< why canceled: older revisions have gone
  std::vector<KeyValue> events;
};
[[nodiscard]] Result<WatchLine> parse_watch_line(std::string_view line);

/// What is stored under the key of the placement.
struct StoredPlacement {
  std::uint32_t epoch = 0;
  std::uint64_t term = 0;  ///< of the leader that stored it
  std::string yaml;
};
std::string format_stored_placement(const StoredPlacement& placement);
[[nodiscard]] Result<StoredPlacement> parse_stored_placement(std::string_view text);

}  // namespace moesaic::cluster::etcd
