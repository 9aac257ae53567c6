#include "common/model/fingerprint.hpp"

#include <algorithm>
#include <fstream>
#include <vector>

#include "common/base/read_file.hpp"
#include "common/model/sha256.hpp"

namespace moesaic {
namespace {

constexpr std::size_t kSample = std::size_t{64} << 10;

/// Lengths in front, so that no two lists of pieces look alike.
void add(Sha256& hash, std::string_view bytes) {
  const auto size = std::to_string(bytes.size()) + ":";
  hash.add(size.data(), size.size());
  hash.add(bytes.data(), bytes.size());
}

}  // namespace

Result<std::string> model_fingerprint(const std::filesystem::path& directory,
                                      std::string_view compute) {
  // A pack is known by its manifest, which has the hashes of all its files.
  if (std::error_code none; std::filesystem::exists(directory / "manifest.json", none)) {
    MOESAIC_TRY(const auto manifest, read_file(directory / "manifest.json", std::size_t{16} << 20));
    Sha256 hash;
    add(hash, manifest);
    return hash.hex(16);
  }
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  if (error) return fail(Errc::kIo, directory.string() + ": " + error.message());
  if (files.empty()) return std::string();
  std::sort(files.begin(), files.end());
  Sha256 hash;
  add(hash, compute == "auto" ? "bf16" : compute);
  MOESAIC_TRY(const auto config, read_file(directory / "config.json", std::size_t{16} << 20));
  add(hash, config);
  std::string sample;
  for (const auto& path : files) {
    const auto size = std::filesystem::file_size(path, error);
    std::ifstream in(path, std::ios::binary);
    if (error || !in) return fail(Errc::kIo, path.string() + ": cannot be read");
    add(hash, path.filename().string());
    add(hash, std::to_string(size));
    for (const auto at : {std::uintmax_t{0}, size > kSample ? size - kSample : 0}) {
      sample.resize(static_cast<std::size_t>(std::min<std::uintmax_t>(size, kSample)));
      in.seekg(static_cast<std::streamoff>(at));
      in.read(sample.data(), static_cast<std::streamsize>(sample.size()));
      if (!in) return fail(Errc::kIo, path.string() + ": cannot be read");
      add(hash, sample);
    }
  }
  return hash.hex(16);
}

}  // namespace moesaic
