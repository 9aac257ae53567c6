#include "common/transport/shm_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace moesaic::transport {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

tl::unexpected<Error> io_error(const char* what) {
  return fail(Errc::kIo, std::string("shared memory: ") + what + ": " + std::strerror(errno));
}

}  // namespace

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

Result<Descriptor> make_shared_memory(std::size_t bytes) {
  Descriptor memory(::memfd_create("moesaic", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory) return io_error("memfd_create");
  if (::ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0) return io_error("ftruncate");
  if (::fcntl(memory.get(), F_ADD_SEALS, kSeals) != 0) return io_error("seal");
  return memory;
}

Result<void> check_shared_memory(const Descriptor& memory, std::size_t bytes) {
  struct stat status {};
  const int seals = ::fcntl(memory.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || ::fstat(memory.get(), &status) != 0 ||
      status.st_size != static_cast<off_t>(bytes))
    return fail(Errc::kCorrupt, "shared memory of a peer: not sealed, or " +
                                    std::to_string(status.st_size) + " bytes, " +
                                    std::to_string(bytes) + " expected");
  return {};
}

Result<Mapping> Mapping::map(const Descriptor& memory, std::size_t offset, std::size_t bytes,
                             bool twice) {
  const auto whole = twice ? 2 * bytes : bytes;
  // Room first; the parts then replace it.
  void* room = ::mmap(nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) return io_error("mmap");
  Mapping mapping;
  mapping.bytes_ = {static_cast<std::byte*>(room), whole};
  for (std::size_t at = 0; at < whole; at += bytes)
    if (::mmap(mapping.data() + at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
               memory.get(), static_cast<off_t>(offset)) == MAP_FAILED)
      return io_error("mmap");
  return mapping;
}

Mapping::~Mapping() {
  if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
}

}  // namespace moesaic::transport
