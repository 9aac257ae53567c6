#include "common/base/write_file.hpp"

#include <fstream>
#include <system_error>

namespace moesaic {

Result<void> write_file(const std::filesystem::path& path, std::string_view content) {
  auto beside = path;
  beside += ".tmp";
  std::ofstream out(beside, std::ios::binary | std::ios::trunc);
  out.write(content.data(), static_cast<std::streamsize>(content.size()));
  out.close();
  std::error_code code;
  if (out) std::filesystem::rename(beside, path, code);
  if (out && !code) return {};
  std::filesystem::remove(beside, code);
  return fail(Errc::kIo, path.string() + ": cannot be written");
}

}  // namespace moesaic
