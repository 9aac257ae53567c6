#include "common/cluster/etcd_messages.hpp"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <limits>

#include "common/base/base64.hpp"

namespace moesaic::cluster::etcd {
namespace {

namespace json = boost::json;

constexpr std::size_t kToldBytes = 200;  // of a text that is no answer

json::string coded(std::string_view bytes) { return json::string(encode_base64(bytes)); }
json::string number(std::int64_t value) { return json::string(std::to_string(value)); }

/// The first key behind all that begin with `prefix`.
std::string range_end(std::string prefix) {
  while (!prefix.empty() && prefix.back() == '\xff') prefix.pop_back();
  if (prefix.empty()) return std::string(1, '\0');  // etcd: to the end of all keys
  prefix.back() = static_cast<char>(static_cast<unsigned char>(prefix.back()) + 1);
  return prefix;
}

tl::unexpected<Error> corrupt(std::string_view what, std::string_view text) {
  return fail(Errc::kCorrupt, "etcd: " + std::string(what) + " in \"" +
                                  std::string(text.substr(0, kToldBytes)) + "\"");
}

/// Typed look at an answer; remembers what did not fit.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  const json::value* member(const json::object& object, std::string_view name) const {
    return object.if_contains(json::string_view(name.data(), name.size()));
  }
  std::int64_t integer(const json::object& object, std::string_view name) {
    const auto* value = member(object, name);
    if (value == nullptr) return 0;
    if (const auto* small = value->if_int64()) return *small;
    if (const auto* text = value->if_string()) {
      std::int64_t out = 0;
      const auto* end = text->data() + text->size();
      const auto [stopped, error] = std::from_chars(text->data(), end, out);
      if (error == std::errc{} && stopped == end) return out;
    }
    reject(name, "a 64-bit number");
    return 0;
  }
  bool boolean(const json::object& object, std::string_view name) {
    const auto* value = member(object, name);
    if (value == nullptr) return false;
    if (const auto* flag = value->if_bool()) return *flag;
    reject(name, "true or false");
    return false;
  }
  std::string string(const json::object& object, std::string_view name) {
    const auto* value = member(object, name);
    if (value == nullptr) return {};
    if (const auto* text = value->if_string()) return {text->data(), text->size()};
    reject(name, "a string");
    return {};
  }
  std::string bytes(const json::object& object, std::string_view name) {
    auto decoded = decode_base64(string(object, name));
    if (decoded) return std::move(*decoded);
    reject(name, "base64");
    return {};
  }
  const json::object& object(const json::object& parent, std::string_view name) {
    static const json::object kNone;
    const auto* value = member(parent, name);
    if (value == nullptr) return kNone;
    if (const auto* found = value->if_object()) return *found;
    reject(name, "an object");
    return kNone;
  }
  /// Calls `each` with every object of an array.
  template <class F>
  void objects(const json::object& parent, std::string_view name, F&& each) {
    const auto* value = member(parent, name);
    if (value == nullptr) return;
    const auto* array = value->if_array();
    if (array == nullptr) return reject(name, "an array");
    for (const auto& element : *array) {
      const auto* found = element.if_object();
      if (found == nullptr) return reject(name, "an array of objects");
      each(*found);
    }
  }
  KeyValue key_value(const json::object& object) {
    KeyValue out;
    out.key = bytes(object, "key");
    out.value = bytes(object, "value");
    out.create_revision = integer(object, "create_revision");
    out.mod_revision = integer(object, "mod_revision");
    out.lease = integer(object, "lease");
    return out;
  }
  void reject(std::string_view name, std::string_view wanted) {
    if (error_.empty()) error_ = std::string(name) + " is not " + std::string(wanted);
  }
  template <class T>
  Result<T> done(T value) const {
    if (!error_.empty()) return corrupt(error_, text_);
    return value;
  }

 private:
  std::string_view text_;
  std::string error_;
};

/// The outer object; an error of etcd's is the error.
Result<json::object> parse(std::string_view text) {
  json::error_code error;
  auto value = json::parse(json::string_view(text.data(), text.size()), error);
  if (error || !value.is_object()) return corrupt("no JSON object", text);
  auto& object = value.get_object();
  const auto* told = object.if_contains("error");
  if (told == nullptr) return std::move(object);
  Reader reader(text);
  const auto* details = told->if_object();  // of a stream: {"grpc_code", "message"}
  const auto& from = details != nullptr ? *details : object;
  auto message = reader.string(from, "message");
  if (message.empty() && told->is_string()) message = reader.string(object, "error");
  const auto code = reader.integer(from, details != nullptr ? "grpc_code" : "code");
  return fail(Errc::kUnavailable, "etcd: " + message + " (code " + std::to_string(code) + ")");
}

/// A line of a stream: what is in "result".
Result<json::object> parse_result(std::string_view text) {
  MOESAIC_TRY(auto object, parse(text));
  const auto* result = object.if_contains("result");
  if (result == nullptr || !result->is_object()) return corrupt("no result", text);
  return result->get_object();
}

Lease lease_of(Reader& reader, const json::object& object) {
  return {reader.integer(object, "ID"), reader.integer(object, "TTL")};
}

const KeyValue* find_in(const std::vector<KeyValue>& found, std::string_view key) {
  const auto at = std::find_if(found.begin(), found.end(),
                               [&](const KeyValue& entry) { return entry.key == key; });
  return at == found.end() ? nullptr : &*at;
}

json::object read_of(std::string_view key) {
  return {{"request_range", json::object{{"key", coded(key)}}}};
}

}  // namespace

const KeyValue* Range::find(std::string_view key) const { return find_in(found, key); }
const KeyValue* TxnAnswer::find(std::string_view key) const { return find_in(found, key); }

std::string grant_request(unsigned ttl_s) {
  return json::serialize(json::object{{"TTL", number(ttl_s)}});
}

std::string lease_request(std::int64_t lease) {
  return json::serialize(json::object{{"ID", number(lease)}});
}

Result<Lease> parse_grant(std::string_view text) {
  MOESAIC_TRY(const auto object, parse(text));
  Reader reader(text);
  const auto lease = lease_of(reader, object);
  if (lease.id == 0 || lease.ttl_s <= 0) reader.reject("lease", "granted");
  return reader.done(lease);
}

Result<Lease> parse_keepalive(std::string_view text) {
  MOESAIC_TRY(const auto object, parse_result(text));
  Reader reader(text);
  return reader.done(lease_of(reader, object));
}

std::string range_request(std::string_view prefix) {
  return json::serialize(
      json::object{{"key", coded(prefix)}, {"range_end", coded(range_end(std::string(prefix)))}});
}

Result<Range> parse_range(std::string_view text) {
  MOESAIC_TRY(const auto object, parse(text));
  Reader reader(text);
  Range range;
  range.revision = reader.integer(reader.object(object, "header"), "revision");
  reader.objects(object, "kvs", [&](const json::object& entry) {
    range.found.push_back(reader.key_value(entry));
  });
  if (range.revision <= 0) reader.reject("header.revision", "larger than 0");
  return reader.done(std::move(range));
}

std::string claim_request(std::string_view key, std::string_view value, std::int64_t lease) {
  json::object put{{"key", coded(key)}, {"value", coded(value)}, {"lease", number(lease)}};
  json::object compare{{"target", "CREATE"}, {"key", coded(key)}, {"create_revision", number(0)}};
  return json::serialize(
      json::object{{"compare", json::array{std::move(compare)}},
                   {"success", json::array{json::object{{"request_put", std::move(put)}}}},
                   {"failure", json::array{read_of(key)}}});
}

std::string guarded_put_request(std::string_view key, std::string_view value,
                                std::int64_t mod_revision, std::string_view guard,
                                std::int64_t guard_revision) {
  json::object led{
      {"target", "CREATE"}, {"key", coded(guard)}, {"create_revision", number(guard_revision)}};
  json::object unchanged{
      {"target", "MOD"}, {"key", coded(key)}, {"mod_revision", number(mod_revision)}};
  json::object put{{"key", coded(key)}, {"value", coded(value)}};
  return json::serialize(
      json::object{{"compare", json::array{std::move(led), std::move(unchanged)}},
                   {"success", json::array{json::object{{"request_put", std::move(put)}}}},
                   {"failure", json::array{read_of(guard), read_of(key)}}});
}

Result<TxnAnswer> parse_txn(std::string_view text) {
  MOESAIC_TRY(const auto object, parse(text));
  Reader reader(text);
  TxnAnswer answer;
  answer.succeeded = reader.boolean(object, "succeeded");
  answer.revision = reader.integer(reader.object(object, "header"), "revision");
  reader.objects(object, "responses", [&](const json::object& response) {
    reader.objects(
        reader.object(response, "response_range"), "kvs",
        [&](const json::object& entry) { answer.found.push_back(reader.key_value(entry)); });
  });
  if (answer.revision <= 0) reader.reject("header.revision", "larger than 0");
  return reader.done(std::move(answer));
}

std::string watch_request(std::string_view prefix, std::int64_t start_revision) {
  json::object create{{"key", coded(prefix)},
                      {"range_end", coded(range_end(std::string(prefix)))},
                      {"start_revision", number(start_revision)}};
  return json::serialize(json::object{{"create_request", std::move(create)}});
}

Result<WatchLine> parse_watch_line(std::string_view line) {
  MOESAIC_TRY(const auto result, parse_result(line));
  Reader reader(line);
  WatchLine out;
  out.canceled = reader.boolean(result, "canceled");
  out.compact_revision = reader.integer(result, "compact_revision");
  reader.objects(result, "events", [&](const json::object& event) {
    auto entry = reader.key_value(reader.object(event, "kv"));
    entry.deleted = reader.string(event, "type") == "DELETE";
    out.events.push_back(std::move(entry));
  });
  return reader.done(std::move(out));
}

std::string format_stored_placement(const StoredPlacement& placement) {
  return json::serialize(json::object{{"epoch", placement.epoch},
                                      {"term", std::to_string(placement.term)},
                                      {"placement", placement.yaml}});
}

Result<StoredPlacement> parse_stored_placement(std::string_view text) {
  MOESAIC_TRY(const auto object, parse(text));
  Reader reader(text);
  const auto epoch = reader.integer(object, "epoch");
  if (epoch <= 0 || epoch > std::numeric_limits<std::uint32_t>::max()) {
    reader.reject("epoch", "a number from 1 to 4294967295");
  }
  StoredPlacement out;
  out.epoch = static_cast<std::uint32_t>(epoch);
  const auto term = reader.integer(object, "term");
  if (term < 0) reader.reject("term", "a number from 0");
  out.term = static_cast<std::uint64_t>(term);
  out.yaml = reader.string(object, "placement");
  return reader.done(std::move(out));
}

}  // namespace moesaic::cluster::etcd
