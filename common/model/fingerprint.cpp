#include "common/model/fingerprint.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <memory>
#include <vector>

#include "common/base/read_file.hpp"

namespace moesaic {
namespace {

constexpr std::size_t kSample = std::size_t{64} << 10;

class Sha256 {
 public:
  Sha256() { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }
  void add(std::string_view bytes) {
    // Lengths in front, so that no two lists of pieces look alike.
    const auto size = std::to_string(bytes.size()) + ":";
    EVP_DigestUpdate(context_.get(), size.data(), size.size());
    EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size());
  }
  std::string hex(std::size_t digits) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> bytes{};
    EVP_DigestFinal_ex(context_.get(), bytes.data(), nullptr);
    std::string text;
    for (std::size_t i = 0; i < digits / 2; ++i) {
      text += "0123456789abcdef"[bytes[i] >> 4U];
      text += "0123456789abcdef"[bytes[i] & 15U];
    }
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_{EVP_MD_CTX_new(), EVP_MD_CTX_free};
};

}  // namespace

Result<std::string> model_fingerprint(const std::filesystem::path& directory,
                                      std::string_view compute) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  if (error) return fail(Errc::kIo, directory.string() + ": " + error.message());
  if (files.empty()) return std::string();
  std::sort(files.begin(), files.end());
  Sha256 hash;
  hash.add(compute);
  MOESAIC_TRY(const auto config, read_file(directory / "config.json", std::size_t{16} << 20));
  hash.add(config);
  std::string sample;
  for (const auto& path : files) {
    const auto size = std::filesystem::file_size(path, error);
    std::ifstream in(path, std::ios::binary);
    if (error || !in) return fail(Errc::kIo, path.string() + ": cannot be read");
    hash.add(path.filename().string());
    hash.add(std::to_string(size));
    for (const auto at : {std::uintmax_t{0}, size > kSample ? size - kSample : 0}) {
      sample.resize(static_cast<std::size_t>(std::min<std::uintmax_t>(size, kSample)));
      in.seekg(static_cast<std::streamoff>(at));
      in.read(sample.data(), static_cast<std::streamsize>(sample.size()));
      if (!in) return fail(Errc::kIo, path.string() + ": cannot be read");
      hash.add(sample);
    }
  }
  return hash.hex(16);
}

}  // namespace moesaic
