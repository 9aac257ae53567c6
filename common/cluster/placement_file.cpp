#include "common/cluster/placement_file.hpp"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <sstream>

#include "common/base/edit_distance.hpp"
#include "common/cluster/placement_table.hpp"

namespace moesaic::cluster {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 20;
constexpr std::size_t kMaxDepth = 8;
constexpr std::size_t kMaxNodes = 20'000;
constexpr std::uint32_t kMaxNumber = 65'535;  // of a layer or expert

/// Thrown inside yaml-cpp's event loop, caught by who runs it.
struct Refused {
  Errc code;
  int line;
  std::string text;
};

/// First look at a file: refuses what could make the tree built from it large or cyclic.
class Guard : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1)
      throw Refused{Errc::kInvalidArgument, mark.line + 1, "a second document (---)"};
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t /*anchor*/) override { count(mark); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t /*anchor*/) override {
    throw Refused{Errc::kInvalidArgument, mark.line + 1, "aliases (*name) are not allowed"};
  }
  void OnScalar(const YAML::Mark& mark, const std::string& /*tag*/, YAML::anchor_t /*anchor*/,
                const std::string& /*value*/) override {
    count(mark);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& /*tag*/,
                       YAML::anchor_t /*anchor*/, YAML::EmitterStyle::value /*style*/) override {
    deeper(mark);
  }
  void OnSequenceEnd() override { --depth_; }
  void OnMapStart(const YAML::Mark& mark, const std::string& /*tag*/, YAML::anchor_t /*anchor*/,
                  YAML::EmitterStyle::value /*style*/) override {
    deeper(mark);
  }
  void OnMapEnd() override { --depth_; }

 private:
  void count(const YAML::Mark& mark) {
    if (++nodes_ > kMaxNodes)
      throw Refused{Errc::kTooLarge, mark.line + 1,
                    "more than " + std::to_string(kMaxNodes) + " values"};
  }
  void deeper(const YAML::Mark& mark) {
    count(mark);
    if (++depth_ > kMaxDepth)
      throw Refused{Errc::kTooLarge, mark.line + 1,
                    "nested deeper than " + std::to_string(kMaxDepth) + " levels"};
  }

  std::size_t documents_ = 0;
  std::size_t depth_ = 0;
  std::size_t nodes_ = 0;
};

int line_of(const YAML::Node& node) { return std::max(node.Mark().line + 1, 1); }

Result<std::uint32_t> parse_number(std::string_view text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > kMaxNumber)
    return fail(Errc::kInvalidArgument, "");
  return value;
}

/// Reads the tree; all errors name file and line.
class Reader {
 public:
  explicit Reader(const std::string& name) : name_(name) {}

  Result<PlacementFile> file(const YAML::Node& root) const {
    PlacementFile file;
    file.name = name_;
    MOESAIC_CHECK(keys(root, {"epoch", "shards"}, "a placement"));
    if (const auto epoch = root["epoch"]) {
      MOESAIC_TRY(file.epoch, number(epoch, "epoch", 1));
    }
    const auto shards = root["shards"];
    if (!shards || !shards.IsSequence() || shards.size() == 0)
      return error(shards ? line_of(shards) : 1, "shards: expected a list of entries");
    for (const auto& node : shards) {
      MOESAIC_TRY(auto entry, this->entry(node));
      file.shards.push_back(std::move(entry));
    }
    return file;
  }

 private:
  tl::unexpected<Error> error(int line, const std::string& text) const {
    return fail(Errc::kInvalidArgument, name_ + ":" + std::to_string(line) + ": " + text);
  }

  /// `node` is a mapping with these keys only, each once.
  Result<void> keys(const YAML::Node& node, const std::vector<std::string_view>& known,
                    const std::string& what) const {
    if (!node.IsMap()) return error(line_of(node), "expected " + what + " as a mapping of keys");
    std::set<std::string> seen;
    for (const auto& pair : node) {
      if (!pair.first.IsScalar()) return error(line_of(pair.first), "a key must be a word");
      const auto& key = pair.first.Scalar();
      if (!seen.insert(key).second)
        return error(line_of(pair.first), "\"" + key + "\" is given twice");
      if (known.empty() || std::find(known.begin(), known.end(), key) != known.end()) continue;
      const auto closest = std::min_element(known.begin(), known.end(), [&](auto a, auto b) {
        return edit_distance(a, key) < edit_distance(b, key);
      });
      return error(line_of(pair.first),
                   "unknown key \"" + key + "\", did you mean \"" + std::string(*closest) + "\"?");
    }
    return {};
  }

  Result<std::uint32_t> number(const YAML::Node& node, const std::string& key,
                               std::uint32_t min) const {
    const auto value = node.IsScalar() ? parse_number(node.Scalar()) : fail(Errc::kCorrupt, "");
    if (!value || *value < min)
      return error(line_of(node), key + (node.IsScalar() ? " \"" + node.Scalar() + "\"" : "") +
                                      ": expected a whole number of " + std::to_string(min) +
                                      " to " + std::to_string(kMaxNumber));
    return *value;
  }

  Result<PlacementFile::Entry> entry(const YAML::Node& node) const {
    PlacementFile::Entry entry;
    entry.line = line_of(node);
    MOESAIC_CHECK(keys(node, {"match", "replicas", "experts"}, "an entry of shards"));
    const auto match = node["match"];
    if (!match) return error(entry.line, "match is missing: {label: value, ...}");
    MOESAIC_CHECK(keys(match, {}, "match"));
    if (match.size() == 0) return error(line_of(match), "match is empty");
    for (const auto& pair : match) {
      if (!pair.second.IsScalar())
        return error(line_of(pair.second), "match: " + pair.first.Scalar() + " must be one value");
      entry.match.emplace(pair.first.Scalar(), pair.second.Scalar());
    }
    if (const auto replicas = node["replicas"]) {
      MOESAIC_TRY(entry.replicas, number(replicas, "replicas", 1));
      if (entry.replicas > kMaxShards)
        return error(line_of(replicas), "replicas " + std::to_string(entry.replicas) +
                                            ": at most " + std::to_string(kMaxShards));
    }
    const auto experts = node["experts"];
    if (!experts || !experts.IsSequence() || experts.size() == 0)
      return error(experts ? line_of(experts) : entry.line,
                   "experts: expected a list of {layers, modality, experts}");
    for (const auto& item : experts) {
      MOESAIC_TRY(auto some, this->experts(item));
      entry.experts.push_back(std::move(some));
    }
    return entry;
  }

  Result<PlacementFile::Experts> experts(const YAML::Node& node) const {
    PlacementFile::Experts some;
    some.line = line_of(node);
    MOESAIC_CHECK(keys(node, {"layers", "modality", "experts"}, "an item of experts"));
    MOESAIC_TRY(some.layers, ranges(node["layers"], "layers"));
    MOESAIC_TRY(some.experts, ranges(node["experts"], "experts"));
    const auto modality = node["modality"];
    const auto which = !modality             ? std::string("all")
                       : modality.IsScalar() ? modality.Scalar()
                                             : std::string();
    if (which == "text" || which == "all") some.pools.push_back(0);
    if (which == "vision" || which == "all") some.pools.push_back(1);
    if (some.pools.empty())
      return error(line_of(modality),
                   "modality \"" + which + "\": expected one of text, vision, all");
    return some;
  }

  Result<PlacementFile::Ranges> ranges(const YAML::Node& node, const std::string& key) const {
    PlacementFile::Ranges ranges;
    if (!node || (node.IsScalar() && node.Scalar() == "all")) return ranges;
    const auto bad = [&](const std::string& part) {
      return error(line_of(node), key + " \"" + part +
                                      "\": expected numbers and ranges such as \"0-31,40\", or "
                                      "\"all\"");
    };
    if (!node.IsScalar()) return bad("");
    std::string_view rest = node.Scalar();
    while (true) {
      const auto comma = std::min(rest.find(','), rest.size());
      auto part = rest.substr(0, comma);
      while (part.starts_with(' ')) part.remove_prefix(1);
      while (part.ends_with(' ')) part.remove_suffix(1);
      const auto dash = std::min(part.find('-'), part.size());
      const auto first = parse_number(part.substr(0, dash));
      const auto last = dash == part.size() ? first : parse_number(part.substr(dash + 1));
      if (!first || !last || *first > *last) return bad(std::string(part));
      ranges.emplace_back(*first, *last);
      if (comma == rest.size()) return ranges;
      rest.remove_prefix(comma + 1);
    }
  }

  const std::string& name_;
};

}  // namespace

std::size_t PlacementFile::shards_needed() const {
  std::size_t needed = 0;
  std::set<std::string> named;
  for (const auto& entry : shards) {
    const auto by_name = entry.match.find("name");
    if (by_name == entry.match.end())
      needed += entry.replicas;
    else if (named.insert(by_name->second).second)
      ++needed;
  }
  return needed;
}

Result<PlacementFile> parse_placement(std::string_view yaml, std::string name) {
  if (yaml.size() > kMaxFileBytes)
    return fail(Errc::kTooLarge, name + ": " + std::to_string(yaml.size()) + " bytes, at most " +
                                     std::to_string(kMaxFileBytes));
  const std::string text(yaml);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    Guard guard;
    while (parser.HandleNextDocument(guard)) {
    }
    return Reader(name).file(YAML::Load(text));
  } catch (const Refused& refused) {
    return fail(refused.code, name + ":" + std::to_string(refused.line) + ": " + refused.text);
  } catch (const YAML::Exception& error) {
    return fail(Errc::kCorrupt,
                name + ":" + std::to_string(error.mark.line + 1) + ": not YAML: " + error.msg);
  }
}

std::string ranges_text(const std::vector<std::uint32_t>& ascending) {
  std::string text;
  for (std::size_t i = 0; i < ascending.size();) {
    auto last = i;
    while (last + 1 < ascending.size() && ascending[last + 1] == ascending[last] + 1) ++last;
    if (!text.empty()) text += ',';
    text += std::to_string(ascending[i]);
    if (last > i) text += '-' + std::to_string(ascending[last]);
    i = last + 1;
  }
  return text;
}

}  // namespace moesaic::cluster
