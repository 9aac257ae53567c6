#include "common/model/pack_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "common/base/full_io.hpp"
#include "common/model/sha256.hpp"

namespace moesaic {
namespace {

namespace json = boost::json;

constexpr std::array<char, 8> kMagic = {'M', 'S', 'C', 'P', 'A', 'C', 'K', '1'};
constexpr std::uint32_t kByteOrder = 0x01020304;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kLargestIndex = std::size_t{64} << 20;
/// Read and mapped by one thread at a time.
constexpr std::size_t kPiece = std::size_t{64} << 20;
/// Linux 5.14; the headers of Debian 12 may lack it.
constexpr int kMadvPopulateRead = 22;

struct Header {
  std::array<char, 8> magic = kMagic;
  std::uint32_t version = kPackVersion;
  std::uint32_t byte_order = kByteOrder;
  std::uint64_t index_offset = 0;
  std::uint64_t index_bytes = 0;
  std::array<char, 64> index_sha256{};
};
static_assert(sizeof(Header) <= kPackAlign);

std::string system_error() { return std::strerror(errno); }

std::uint64_t aligned(std::uint64_t bytes) {
  return (bytes + kPackAlign - 1) / kPackAlign * kPackAlign;
}

std::string to_text(const std::vector<PackEntry>& entries) {
  json::array list;
  for (const auto& e : entries)
    list.push_back(
        {{"name", e.name},
         {"format",
          e.format ? json::value(json::string(format_name(*e.format))) : json::value("values")},
         {"rows", e.rows},
         {"cols", e.cols},
         {"gate_up", e.gate_up},
         {"a8_block",
          e.format && is_integer(*e.format) ? a8_block(padded_cols(*e.format, e.cols)) : 0},
         {"offset", e.offset},
         {"bytes", e.bytes},
         {"sha256", e.sha256}});
  return json::serialize(list);
}

PackedMatrix shape_of(const PackEntry& e) {
  PackedMatrix w;
  w.format = *e.format;
  w.rows = e.rows;
  w.cols = e.cols;
  w.gate_up = e.gate_up;
  return w;
}

/// Nothing in an index is trusted. @errors the reason
Result<PackEntry> parse_entry(const json::value& value, std::uint64_t limit) try {
  PackEntry e;
  const auto& o = value.as_object();
  e.name = json::value_to<std::string>(o.at("name"));
  const auto format = json::value_to<std::string>(o.at("format"));
  e.rows = o.at("rows").to_number<std::uint64_t>();
  e.cols = o.at("cols").to_number<std::uint64_t>();
  e.gate_up = o.at("gate_up").as_bool();
  e.offset = o.at("offset").to_number<std::uint64_t>();
  e.bytes = o.at("bytes").to_number<std::uint64_t>();
  e.sha256 = json::value_to<std::string>(o.at("sha256"));
  const auto what = "tensor \"" + e.name + "\": ";
  constexpr std::uint64_t kMost = std::uint64_t{1} << 28;
  if (e.rows == 0 || e.cols == 0 || e.rows > kMost || e.cols > kMost)
    return fail(Errc::kCorrupt, what + std::to_string(e.rows) + " x " + std::to_string(e.cols));
  std::uint64_t expected = e.rows * e.cols * sizeof(float);
  if (format != "values") {
    e.format = parse_format(format);
    if (!e.format) return fail(Errc::kUnsupported, what + "format \"" + format + "\"");
    expected = shape_of(e).bytes();
  }
  if (e.bytes != expected)
    return fail(Errc::kCorrupt, what + std::to_string(e.bytes) + " bytes, " +
                                    std::to_string(expected) + " expected");
  if (e.offset % kPackAlign != 0 || e.offset < kPackAlign || e.offset > limit ||
      e.bytes > limit - e.offset)
    return fail(Errc::kCorrupt, what + "at " + std::to_string(e.offset) + ", " +
                                    std::to_string(e.bytes) + " bytes; tensors end at " +
                                    std::to_string(limit));
  return e;
} catch (const std::exception& e) {
  return fail(Errc::kCorrupt, std::string("index: ") + e.what());
}

}  // namespace

PackFileWriter::PackFileWriter(std::filesystem::path path, int fd)
    : path_(std::move(path)), beside_(path_.string() + ".tmp"), fd_(fd), at_(kPackAlign) {}

PackFileWriter::PackFileWriter(PackFileWriter&& other) noexcept
    : path_(std::move(other.path_)),
      beside_(std::move(other.beside_)),
      fd_(std::exchange(other.fd_, -1)),
      keep_(other.keep_),
      at_(other.at_),
      entries_(std::move(other.entries_)) {}

PackFileWriter::~PackFileWriter() {
  if (fd_ < 0) return;
  ::close(fd_);
  if (!keep_) ::unlink(beside_.c_str());
}

Result<PackFileWriter> PackFileWriter::create(const std::filesystem::path& path) {
  const auto beside = path.string() + ".tmp";
  const int fd = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return fail(Errc::kIo, beside + ": " + system_error());
  PackFileWriter writer(path, fd);
  if (::lseek(fd, kPackAlign, SEEK_SET) < 0) return fail(Errc::kIo, beside + ": " + system_error());
  return writer;
}

Result<PackFileWriter> PackFileWriter::resume(const std::filesystem::path& path,
                                              std::string_view state) try {
  const auto parsed = json::parse(state).as_object();
  const auto at = parsed.at("bytes").to_number<std::uint64_t>();
  std::vector<PackEntry> entries;
  for (const auto& value : parsed.at("index").as_array()) {
    MOESAIC_TRY(auto entry, parse_entry(value, at));
    entries.push_back(std::move(entry));
  }
  const auto beside = path.string() + ".tmp";
  const int fd = ::open(beside.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0)
    return fail(errno == ENOENT ? Errc::kNotFound : Errc::kIo, beside + ": " + system_error());
  PackFileWriter writer(path, fd);
  writer.keep_ = true;
  struct stat info {};
  if (::fstat(fd, &info) != 0) return fail(Errc::kIo, beside + ": " + system_error());
  if (static_cast<std::uint64_t>(info.st_size) < at)
    return fail(Errc::kCorrupt, beside + ": " + std::to_string(info.st_size) + " bytes, " +
                                    std::to_string(at) + " were written");
  if (::ftruncate(fd, static_cast<off_t>(at)) != 0 ||
      ::lseek(fd, static_cast<off_t>(at), SEEK_SET) < 0)
    return fail(Errc::kIo, beside + ": " + system_error());
  writer.at_ = at;
  writer.entries_ = std::move(entries);
  return writer;
} catch (const std::exception& e) {
  return fail(Errc::kCorrupt, path.string() + ".tmp: its state: " + e.what());
}

Result<std::string> PackFileWriter::suspend() {
  MOESAIC_CHECK(pad());
  // The size, too, where nothing was added behind the header's place.
  if (::ftruncate(fd_, static_cast<off_t>(at_)) != 0 || ::fsync(fd_) != 0)
    return fail(Errc::kIo, beside_.string() + ": " + system_error());
  keep_ = true;
  return "{\"bytes\":" + std::to_string(at_) + ",\"index\":" + to_text(entries_) + "}";
}

Result<void> PackFileWriter::write(const void* data, std::size_t bytes) {
  if (auto put = write_fully(fd_, data, bytes); !put)
    return fail(Errc::kIo, path_.string() + ", at byte " + std::to_string(at_) + ": " +
                               std::move(put).error().what);
  at_ += bytes;
  return {};
}

Result<void> PackFileWriter::pad() {
  static constexpr std::array<char, kPackAlign> kZeros{};
  return write(kZeros.data(), aligned(at_) - at_);
}

Result<void> PackFileWriter::append(PackEntry entry, const void* data) {
  MOESAIC_CHECK(pad());
  entry.offset = at_;
  Sha256 hash;
  hash.add(data, entry.bytes);
  entry.sha256 = hash.hex();
  MOESAIC_CHECK(write(data, entry.bytes));
  entries_.push_back(std::move(entry));
  return {};
}

Result<void> PackFileWriter::add(const std::string& name, const PackedMatrix& w) {
  return append({name, w.format, w.rows, w.cols, w.gate_up, 0, w.bytes(), {}}, w.data);
}

Result<void> PackFileWriter::add(const std::string& name, std::span<const float> values) {
  return append({name, std::nullopt, 1, values.size(), false, 0, values.size_bytes(), {}},
                values.data());
}

Result<std::string> PackFileWriter::finish() {
  MOESAIC_CHECK(pad());
  const auto text = to_text(entries_);
  const auto hash = sha256_hex(text);
  Header header;
  header.index_offset = at_;
  header.index_bytes = text.size();
  std::copy(hash.begin(), hash.end(), header.index_sha256.begin());
  MOESAIC_CHECK(write(text.data(), text.size()));
  std::array<char, kPackAlign> first{};
  std::memcpy(first.data(), &header, sizeof header);
  if (::lseek(fd_, 0, SEEK_SET) < 0) return fail(Errc::kIo, path_.string() + ": " + system_error());
  MOESAIC_CHECK(write(first.data(), first.size()));
  MOESAIC_CHECK(publish_file(fd_, beside_, path_));
  ::close(std::exchange(fd_, -1));
  return hash;
}

Result<std::shared_ptr<const PackFile>> PackFile::open(const std::filesystem::path& path) {
  const std::shared_ptr<PackFile> file(new PackFile);
  file->path_ = path;
  file->fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file->fd_ < 0)
    return fail(errno == ENOENT ? Errc::kNotFound : Errc::kIo,
                path.string() + ": " + system_error());
  struct stat info {};
  if (::fstat(file->fd_, &info) != 0) return fail(Errc::kIo, path.string() + ": " + system_error());
  file->bytes_ = static_cast<std::uint64_t>(info.st_size);
  if (const auto read = file->read_index(); !read) return fail(path.string(), read.error());

  // Over-reserve, so that the mapping starts on a huge page.
  const auto reserved = file->bytes_ + kHugePage;
  void* raw =
      ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return fail(Errc::kIo, path.string() + ": " + system_error());
  const auto start =
      (reinterpret_cast<std::uintptr_t>(raw) + kHugePage - 1) / kHugePage * kHugePage;
  auto* const wanted = reinterpret_cast<std::byte*>(start);
  if (::mmap(wanted, file->bytes_, PROT_READ, MAP_SHARED | MAP_FIXED, file->fd_, 0) == MAP_FAILED) {
    const auto why = system_error();
    ::munmap(raw, reserved);
    return fail(Errc::kIo, path.string() + ": " + why);
  }
  const auto before = start - reinterpret_cast<std::uintptr_t>(raw);
  if (before > 0) ::munmap(raw, before);
  const auto end = aligned(file->bytes_);
  ::munmap(wanted + end, reserved - before - end);
  ::madvise(wanted, file->bytes_, MADV_HUGEPAGE);
  file->data_ = wanted;
  return std::shared_ptr<const PackFile>(file);
}

PackFile::~PackFile() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
  if (fd_ >= 0) ::close(fd_);
}

Result<void> PackFile::read_index() {
  Header header;
  if (bytes_ < kPackAlign)
    return fail(Errc::kCorrupt, std::to_string(bytes_) + " bytes, a pack has at least " +
                                    std::to_string(kPackAlign));
  MOESAIC_CHECK(read_fully(fd_, &header, sizeof header, 0));
  if (header.magic != kMagic) return fail(Errc::kCorrupt, "not a pack file");
  if (header.byte_order != kByteOrder) return fail(Errc::kUnsupported, "of another byte order");
  if (header.version != kPackVersion)
    return fail(Errc::kUnsupported, "pack version " + std::to_string(header.version) +
                                        ", this program reads " + std::to_string(kPackVersion));
  if (header.index_bytes > kLargestIndex || header.index_offset > bytes_ ||
      header.index_offset + header.index_bytes != bytes_)
    return fail(Errc::kCorrupt, "truncated or damaged: index of " +
                                    std::to_string(header.index_bytes) + " bytes at " +
                                    std::to_string(header.index_offset) + ", the file has " +
                                    std::to_string(bytes_));
  std::string text(header.index_bytes, '\0');
  MOESAIC_CHECK(read_fully(fd_, text.data(), text.size(), header.index_offset));
  index_sha256_ = sha256_hex(text);
  if (!std::equal(index_sha256_.begin(), index_sha256_.end(), header.index_sha256.begin()))
    return fail(Errc::kCorrupt, "index: damaged, its SHA-256 is " + index_sha256_);
  boost::system::error_code error;
  const auto parsed = json::parse(text, error);
  if (error || !parsed.is_array()) return fail(Errc::kCorrupt, "index: no JSON list");
  for (const auto& value : parsed.get_array()) {
    MOESAIC_TRY(auto entry, parse_entry(value, header.index_offset));
    if (!by_name_.emplace(entry.name, entries_.size()).second)
      return fail(Errc::kCorrupt, "tensor \"" + entry.name + "\": listed twice");
    entries_.push_back(std::move(entry));
  }
  return {};
}

const PackEntry* PackFile::find(const std::string& name) const {
  const auto at = by_name_.find(name);
  return at == by_name_.end() ? nullptr : &entries_[at->second];
}

Result<PackedMatrix> PackFile::matrix(const std::string& name, std::uint64_t rows,
                                      std::uint64_t cols, bool gate_up) const {
  const auto* entry = find(name);
  if (entry == nullptr || !entry->format)
    return fail(Errc::kNotFound, path_.string() + ": no matrix \"" + name + "\"");
  if (entry->rows != rows || entry->cols != cols || entry->gate_up != gate_up)
    return fail(Errc::kShapeMismatch, path_.string() + ": tensor \"" + name +
                                          "\": " + std::to_string(entry->rows) + " x " +
                                          std::to_string(entry->cols) + ", expected " +
                                          std::to_string(rows) + " x " + std::to_string(cols));
  auto w = shape_of(*entry);
  w.data = data_ + entry->offset;
  w.owner = shared_from_this();
  return w;
}

Result<AlignedVector<float>> PackFile::values(const std::string& name, std::uint64_t count) const {
  const auto* entry = find(name);
  if (entry == nullptr || entry->format)
    return fail(Errc::kNotFound, path_.string() + ": no values \"" + name + "\"");
  if (entry->cols != count)
    return fail(Errc::kShapeMismatch, path_.string() + ": tensor \"" + name +
                                          "\": " + std::to_string(entry->cols) +
                                          " values, expected " + std::to_string(count));
  AlignedVector<float> values(count);
  std::memcpy(values.data(), data_ + entry->offset, count * sizeof(float));
  return values;
}

Result<void> PackFile::populate(std::span<const PackEntry* const> entries, ThreadPool& pool,
                                PackWarmer* warmer, const PackProgress& progress) const {
  // Neighbours become one range, cut into pieces.
  struct Range {
    std::uint64_t first, last;
  };
  std::vector<Range> pieces;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < entries.size();) {
    const auto first = entries[i]->offset;
    auto last = aligned(first + entries[i]->bytes);
    for (++i; i < entries.size() && entries[i]->offset == last; ++i)
      last = aligned(last + entries[i]->bytes);
    for (auto at = first; at < last; at += kPiece)
      pieces.push_back({at, std::min(at + kPiece, last)});
    total += last - first;
  }
  constexpr auto kNone = ~std::uint64_t{0};
  std::atomic<std::uint64_t> done{0}, bad{kNone};
  std::mutex mutex;
  pool.parallel_for(pieces.size(), [&](std::size_t i) {
    const auto [first, last] = pieces[i];
    // An older kernel refuses (EINVAL); its pages come when they are touched. EFAULT: touching them
    // would end the process.
    int why = 0;
    do why = ::madvise(data_ + first, last - first, kMadvPopulateRead) == 0 ? 0 : errno;
    while (why == EINTR || why == EAGAIN);
    if (why != 0 && why != EINVAL) {
      auto at = bad.load();
      while (first < at && !bad.compare_exchange_weak(at, first)) {
      }
      return;
    }
    done += last - first;
    if (!progress) return;
    const std::lock_guard lock(mutex);
    progress(done, total);
  });
  if (bad != kNone)
    return fail(Errc::kIo, path_.string() + ": cannot be read from byte " + std::to_string(bad) +
                               " on: the disk fails, or the file has been cut");
  if (warmer == nullptr) return {};
  for (const auto& [first, last] : pieces)
    warmer->add(shared_from_this(), data_ + first, last - first);
  return {};
}

Result<void> PackFile::verify(const PackEntry& entry) const {
  Sha256 hash;
  hash.add(data_ + entry.offset, entry.bytes);
  const auto found = hash.hex();
  if (found == entry.sha256) return {};
  return fail(Errc::kCorrupt, path_.string() + ": tensor \"" + entry.name +
                                  "\": damaged, SHA-256 " + found + ", expected " + entry.sha256);
}

}  // namespace moesaic
