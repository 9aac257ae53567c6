#include <algorithm>
#include <array>
#include <boost/json/basic_parser_impl.hpp>
#include <cstdint>
#include <optional>
#include <utility>

#include "common/tensor/safetensors.hpp"

namespace moesaic {
namespace {

namespace json = boost::json;

constexpr std::size_t kMaxDepth = 3;  // root, tensor, list of numbers

/// A name from a file, made safe for a log line.
std::string shown(std::string_view name) {
  std::string text = "\"";
  for (const char c : name.substr(0, 200)) text += c >= ' ' && c < 127 ? c : '?';
  return text + (name.size() > 200 ? "...\"" : "\"");
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const auto type : {DType::kF32, DType::kBf16, DType::kF16, DType::kI32, DType::kI64,
                          DType::kU8, DType::kU16, DType::kI8}) {
    if (dtype_name(type) == name) return type;
  }
  return std::nullopt;
}

/// A tensor as the header states it, not yet compared with the data section.
struct Entry {
  std::optional<DType> dtype;
  std::optional<std::vector<std::int64_t>> shape;
  std::optional<std::array<std::uint64_t, 2>> offsets;
};

/// Receives the events of Boost.JSON's parser, so that no document tree of a hostile header is ever
/// built. Its names and signatures are the parser's.
class HeaderHandler {
 public:
  static constexpr std::size_t max_object_size = kMaxSafetensorsTensors + 1;
  static constexpr std::size_t max_array_size = kMaxSafetensorsDims;
  static constexpr std::size_t max_key_size = kMaxSafetensorsName;
  static constexpr std::size_t max_string_size = 1u << 20;
  using Code = json::error_code;
  using Text = json::string_view;

  std::map<std::string, Entry> entries;
  std::map<std::string, std::string> metadata;
  std::optional<Error> error;

  bool on_document_begin(Code&) { return true; }
  bool on_document_end(Code&) { return true; }

  bool on_object_begin(Code& code) {
    if (depth_ == 2 || list_ != nullptr)
      return stop(code, here() + ": object found, expected a value");
    if (depth_ == 1 && !in_metadata_) entry_ = &entries[name_];
    ++depth_;
    return true;
  }

  bool on_object_end(std::size_t, Code& code) {
    --depth_;
    if (depth_ == 1 && !std::exchange(in_metadata_, false)) {
      const char* missing = !entry_->dtype     ? "dtype"
                            : !entry_->shape   ? "shape"
                            : !entry_->offsets ? "data_offsets"
                                               : nullptr;
      if (missing != nullptr)
        return stop(code,
                    here() + ": no " + missing + " found, expected dtype, shape and data_offsets");
    }
    return true;
  }

  bool on_array_begin(Code& code) {
    if (depth_ != 2 || in_metadata_ || list_ != nullptr ||
        (field_ != "shape" && field_ != "data_offsets"))
      return stop(code, here() + ": list found, expected another type");
    numbers_.clear();
    list_ = &numbers_;
    return true;
  }

  bool on_array_end(std::size_t, Code& code) {
    list_ = nullptr;
    if (field_ == "shape") {
      entry_->shape.emplace(numbers_.begin(), numbers_.end());
      return true;
    }
    if (numbers_.size() != 2)
      return stop(code, here() + ": " + std::to_string(numbers_.size()) +
                            " data_offsets found, expected 2");
    entry_->offsets = {static_cast<std::uint64_t>(numbers_[0]),
                       static_cast<std::uint64_t>(numbers_[1])};
    return true;
  }

  bool on_key_part(Text part, std::size_t, Code&) {
    text_.append(part.data(), part.size());
    return true;
  }

  bool on_key(Text part, std::size_t, Code& code) {
    text_.append(part.data(), part.size());
    auto key = std::exchange(text_, {});
    if (depth_ == 1) {
      name_ = std::move(key);
      field_.clear();
      in_metadata_ = name_ == "__metadata__";
      if (in_metadata_ ? std::exchange(metadata_seen_, true) : entries.contains(name_))
        return stop(code, here() + ": found twice, expected once");
      if (entries.size() >= kMaxSafetensorsTensors)
        return stop(code, "more than " + std::to_string(kMaxSafetensorsTensors) +
                              " tensors found, expected at most that");
      return true;
    }
    field_ = std::move(key);
    if (in_metadata_) {
      if (metadata.contains(field_))
        return stop(code, here() + ": key " + shown(field_) + " found twice, expected once");
      if (metadata.size() >= kMaxSafetensorsMetadata)
        return stop(code, here() + ": more than " + std::to_string(kMaxSafetensorsMetadata) +
                              " entries found, expected at most that");
      return true;
    }
    const bool again = (field_ == "dtype" && entry_->dtype) ||
                       (field_ == "shape" && entry_->shape) ||
                       (field_ == "data_offsets" && entry_->offsets);
    if (again) return stop(code, here() + ": " + field_ + " found twice, expected once");
    if (field_ != "dtype" && field_ != "shape" && field_ != "data_offsets")
      return stop(code, here() + ": key " + shown(field_) +
                            " found, expected dtype, shape or data_offsets");
    return true;
  }

  bool on_string_part(Text part, std::size_t, Code&) {
    text_.append(part.data(), part.size());
    return true;
  }

  bool on_string(Text part, std::size_t, Code& code) {
    text_.append(part.data(), part.size());
    auto value = std::exchange(text_, {});
    if (depth_ == 2 && in_metadata_) {
      metadata.emplace(field_, std::move(value));
      return true;
    }
    if (depth_ != 2 || field_ != "dtype" || list_ != nullptr)
      return stop(code, here() + ": string found, expected another type");
    entry_->dtype = dtype_from_name(value);
    if (entry_->dtype) return true;
    return stop(code,
                here() + ": element type " + shown(value) +
                    " found, expected one of F32, BF16, F16, I32, I64, U8, U16",
                Errc::kUnsupported);
  }

  bool on_number_part(Text, Code&) { return true; }
  bool on_int64(std::int64_t value, Text, Code& code) {
    if (list_ == nullptr) return stop(code, here() + ": number found, expected another type");
    if (value < 0)
      return stop(code, here() + ": " + field_ + " holds " + std::to_string(value) +
                            ", expected no negative number");
    list_->push_back(value);
    return true;
  }
  bool on_uint64(std::uint64_t value, Text, Code& code) {
    return stop(code, here() + ": " + field_ + " holds " + std::to_string(value) +
                          ", expected less than 2^63");
  }
  bool on_double(double, Text, Code& code) {
    return stop(code, here() + ": " + field_ + " holds a fraction, expected integers below 2^63");
  }
  bool on_bool(bool, Code& code) {
    return stop(code, here() + ": boolean found, expected another type");
  }
  bool on_null(Code& code) { return stop(code, here() + ": null found, expected another type"); }
  bool on_comment_part(Text, Code&) { return true; }
  bool on_comment(Text, Code&) { return true; }

 private:
  std::string here() const {
    if (depth_ == 0) return "header";
    return in_metadata_ ? "__metadata__" : "tensor " + shown(name_);
  }
  bool stop(Code& code, std::string what, Errc errc = Errc::kCorrupt) {
    error = Error{errc, std::move(what)};
    code = json::error::syntax;
    return false;
  }

  std::size_t depth_ = 0;
  bool in_metadata_ = false;
  bool metadata_seen_ = false;
  std::string name_, field_, text_;
  Entry* entry_ = nullptr;
  std::vector<std::int64_t> numbers_;
  std::vector<std::int64_t>* list_ = nullptr;  // numbers_ while inside a list
};

/// Bytes of a tensor of that shape; nothing on overflow.
std::optional<std::size_t> stored_bytes(DType dtype, std::span<const std::int64_t> shape) {
  std::size_t bytes = dtype_bytes(dtype);
  // Zero first: a huge product with a zero in it is an empty tensor.
  if (std::ranges::find(shape, 0) != shape.end()) return 0;
  for (const auto dim : shape) {
    if (__builtin_mul_overflow(bytes, static_cast<std::size_t>(dim), &bytes)) return std::nullopt;
  }
  return bytes;
}

Result<void> check_entry(const Entry& entry, std::size_t data_bytes) {
  const auto [begin, end] = *entry.offsets;
  const auto range = "bytes " + std::to_string(begin) + " to " + std::to_string(end);
  if (begin > end) return fail(Errc::kCorrupt, range + " found, expected them in order");
  if (end > data_bytes)
    return fail(Errc::kCorrupt, range + " found, expected at most the " +
                                    std::to_string(data_bytes) + " bytes of data in the file");
  const auto what = describe(*entry.dtype, *entry.shape);
  const auto expected = stored_bytes(*entry.dtype, *entry.shape);
  if (!expected)
    return fail(Errc::kCorrupt, what + " found, expected a size that fits " +
                                    std::to_string(end - begin) + " bytes");
  if (*expected != end - begin)
    return fail(Errc::kCorrupt, std::to_string(end - begin) + " bytes found, expected " +
                                    std::to_string(*expected) + " for " + what);
  return {};
}

/// Neither overlap nor hole: the ranges, sorted, must tile the data section.
Result<void> check_tiling(const std::map<std::string, Entry>& entries, std::size_t data_bytes) {
  using Range = std::pair<std::array<std::uint64_t, 2>, const std::string*>;
  std::vector<Range> ranges;
  ranges.reserve(entries.size());
  for (const auto& [name, entry] : entries) ranges.emplace_back(*entry.offsets, &name);
  std::ranges::sort(ranges);
  std::uint64_t at = 0;
  const std::string* before = nullptr;
  for (const auto& [offsets, name] : ranges) {
    if (offsets[0] != at)
      return fail(Errc::kCorrupt,
                  "tensor " + shown(*name) + ": begins at byte " + std::to_string(offsets[0]) +
                      (offsets[0] < at ? " (overlap)" : " (hole)") + " found, expected " +
                      std::to_string(at) + ", the end of " +
                      (before != nullptr ? "tensor " + shown(*before) : std::string("nothing")));
    at = offsets[1];
    before = name;
  }
  if (at == data_bytes) return {};
  return fail(Errc::kCorrupt,
              std::to_string(data_bytes) + " bytes of data found, expected " + std::to_string(at) +
                  ", the end of " +
                  (before != nullptr ? "tensor " + shown(*before) : std::string("nothing")));
}

}  // namespace

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

std::string describe(DType dtype, std::span<const std::int64_t> shape) {
  return std::string(dtype_name(dtype)) + " " + shape_text(shape);
}

Result<std::map<std::string, StoredTensor>> parse_safetensors_header(
    std::string_view header, std::size_t data_bytes, std::string_view file,
    std::map<std::string, std::string>* metadata) try {
  if (header.size() > kMaxSafetensorsHeader)
    return fail(Errc::kTooLarge,
                std::string(file) + ": header of " + std::to_string(header.size()) +
                    " bytes found, expected at most " + std::to_string(kMaxSafetensorsHeader));
  json::parse_options options;
  options.max_depth = kMaxDepth;
  json::basic_parser<HeaderHandler> parser(options);
  json::error_code code;
  const auto used = parser.write_some(false, header.data(), header.size(), code);
  auto& handler = parser.handler();
  if (handler.error) return fail(file, *handler.error);
  const bool padded = !code && header.find_first_not_of(' ', used) == std::string_view::npos;
  if (code || !padded)
    return fail(Errc::kCorrupt, std::string(file) + ": header: byte " + std::to_string(used) +
                                    " of " + std::to_string(header.size()) + ": " +
                                    (code ? code.message() : "text after the end") +
                                    " found, expected JSON of a safetensors header");

  std::map<std::string, StoredTensor> tensors;
  for (const auto& [name, entry] : handler.entries) {
    if (auto ok = check_entry(entry, data_bytes); !ok)
      return fail(std::string(file) + ": tensor " + shown(name), ok.error());
  }
  if (auto ok = check_tiling(handler.entries, data_bytes); !ok) return fail(file, ok.error());
  while (!handler.entries.empty()) {
    auto node = handler.entries.extract(handler.entries.begin());
    auto& entry = node.mapped();
    const auto bytes = (*entry.offsets)[1] - (*entry.offsets)[0];
    tensors.emplace_hint(
        tensors.end(), std::move(node.key()),
        StoredTensor{*entry.dtype, std::move(*entry.shape), nullptr, bytes, (*entry.offsets)[0]});
  }
  if (metadata != nullptr) *metadata = std::move(handler.metadata);
  return tensors;
} catch (const std::exception& e) {
  return fail(Errc::kInternal, std::string(file) + ": header: " + e.what());
}

}  // namespace moesaic
