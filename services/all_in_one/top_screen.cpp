#include "services/all_in_one/top_screen.hpp"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cstdarg>
#include <cstdio>

#include "common/cluster/placement_resolve.hpp"

namespace moesaic {
namespace {

namespace json = boost::json;
using cluster::bytes_text;

[[gnu::format(printf, 2, 3)]] void print(std::string& out, const char* format, ...) {
  std::array<char, 512> line{};
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(line.data(), line.size(), format, arguments);
  va_end(arguments);
  out += line.data();
}

std::string text(const json::value& of, const char* key) {
  return json::value_to<std::string>(of.at(key));
}
double number(const json::value& of, const char* key) { return of.at(key).to_number<double>(); }

std::string key_of(const json::value& member) {
  return text(member, "role") + "/" + text(member, "name");
}

/// Boost.JSON tells a missing or wrong field by an exception.
template <class Function>
auto read_view(const std::string& view, const Function& function)
    -> Result<decltype(function(json::value()))> {
  try {
    return function(json::parse(view));
  } catch (const std::exception& error) {
    return fail(Errc::kCorrupt, std::string("/view: ") + error.what());
  }
}

std::string state_of(const json::value& member) {
  const auto& load = member.at("load");
  if (!member.at("alive").as_bool()) return "lost";
  if (load.at("draining").as_bool()) return "draining";
  return load.at("ready").as_bool() ? "ready" : "not ready";
}

void print_members(std::string& out, const json::value& view) {
  print(out, "%-15s %-18s %-10s %-10s %7s %7s %9s  %s\n", "ROLE", "NAME", "NODE", "STATE",
        "RUNNING", "WAITING", "KV FREE", "");
  for (const auto& member : view.at("members").as_array()) {
    const auto& load = member.at("load");
    const auto* node = member.at("labels").as_object().if_contains("node");
    const auto blocks = number(load, "kv_blocks_total");
    std::string free = "-";
    if (blocks > 0) {
      free.clear();
      print(free, "%.0f %%", 100 * number(load, "kv_blocks_free") / blocks);
    }
    print(out, "%-15s %-18s %-10s %-10s %7.0f %7.0f %9s  %s\n", text(member, "role").c_str(),
          text(member, "name").c_str(),
          node == nullptr ? "-" : json::value_to<std::string>(*node).c_str(),
          state_of(member).c_str(), number(load, "running"), number(load, "waiting"), free.c_str(),
          text(load, "detail").c_str());
  }
}

const json::value* find_shard(const json::value& view, const std::string& name) {
  for (const auto& member : view.at("members").as_array())
    if (text(member, "role") == "expert-shard" && text(member, "name") == name) return &member;
  return nullptr;
}

void print_shards(std::string& out, const json::value& view, const json::value& before,
                  double seconds) {
  print(out, "%-18s %-10s %8s %10s %12s  %s\n", "SHARD", "STATE", "EXPERTS", "ROWS/S", "RESIDENT",
        "HOLDS");
  for (const auto& shard : view.at("placement").at("shards").as_array()) {
    const auto name = text(shard, "name");
    const auto* member = find_shard(view, name);
    const auto* earlier = find_shard(before, name);
    double rows = 0;
    std::uint64_t resident = 0;
    if (member != nullptr) {
      resident = static_cast<std::uint64_t>(number(member->at("load"), "resident_bytes"));
      rows = number(member->at("load"), "rows");
      rows -= earlier == nullptr ? rows : number(earlier->at("load"), "rows");
    }
    std::string holds;
    for (const auto& group : shard.at("experts").as_array())
      holds += (holds.empty() ? "" : "; ") + text(group, "modality") + " " +
               text(group, "experts") + " of " + text(group, "layers");
    print(out, "%-18s %-10s %8.0f %10.1f %12s  %s\n", name.c_str(),
          member == nullptr ? "unknown" : state_of(*member).c_str(), number(shard, "count"),
          seconds > 0 ? std::max(0.0, rows) / seconds : 0, bytes_text(resident).c_str(),
          holds.c_str());
  }
}

struct Wire {
  double messages = 0;
  double bytes = 0;
};
using Wires = std::map<std::array<std::string, 4>, Wire>;

Wires wires_of(const ClusterMoment& moment) {
  Wires wires;
  for (const auto& [member, samples] : moment.metrics) {
    for (const auto& sample : samples) {
      const bool bytes = sample.name == "moesaic_wire_bytes_total";
      if (!bytes && sample.name != "moesaic_wire_messages_total") continue;
      const auto label = [&](const char* key) {
        const auto it = sample.labels.find(key);
        return it == sample.labels.end() ? std::string() : it->second;
      };
      auto& wire = wires[{label("from"), label("to"), label("kind"), label("crypto")}];
      (bytes ? wire.bytes : wire.messages) += sample.value;
    }
  }
  return wires;
}

void print_wires(std::string& out, const ClusterMoment& before, const ClusterMoment& now) {
  const auto seconds = now.seconds - before.seconds;
  const auto earlier = wires_of(before);
  print(out, "%-28s %-28s %-12s %-7s %12s %14s\n", "FROM", "TO", "KIND", "CRYPTO", "MESSAGES/S",
        "BYTES/S");
  for (const auto& [key, wire] : wires_of(now)) {
    const auto known = earlier.find(key);
    if (known == earlier.end() || seconds <= 0) continue;
    const auto messages = (wire.messages - known->second.messages) / seconds;
    const auto bytes = (wire.bytes - known->second.bytes) / seconds;
    if (messages <= 0) continue;
    print(out, "%-28s %-28s %-12s %-7s %12.1f %12s/s\n", key[0].c_str(), key[1].c_str(),
          key[2].c_str(), key[3].c_str(), messages,
          bytes_text(static_cast<std::uint64_t>(std::max(0.0, bytes))).c_str());
  }
}

}  // namespace

Result<std::map<std::string, std::string>> admin_urls(const std::string& view) {
  return read_view(view, [](const json::value& seen) {
    std::map<std::string, std::string> urls;
    for (const auto& member : seen.at("members").as_array())
      if (member.at("alive").as_bool() && !text(member, "admin").empty())
        urls.emplace(key_of(member), text(member, "admin"));
    return urls;
  });
}

Result<std::string> top_screen(const ClusterMoment& before, const ClusterMoment& now) {
  return read_view(now.view, [&](const json::value& view) {
    const auto earlier = json::parse(before.view);
    const auto missing = text(view, "missing");
    std::string out;
    print(out, "leader %s, term %.0f, placement %.0f, %s\n\n", text(view, "leader").c_str(),
          number(view, "term"), number(view.at("placement"), "epoch"),
          missing.empty() ? "ready" : ("not ready: " + missing).c_str());
    print_members(out, view);
    out += "\n";
    print_shards(out, view, earlier, now.seconds - before.seconds);
    out += "\n";
    print_wires(out, before, now);
    return out;
  });
}

}  // namespace moesaic
