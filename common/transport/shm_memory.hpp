#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "common/base/result.hpp"

namespace moesaic::transport {

/// A file descriptor, closed by its owner.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor();

  int get() const { return number_; }
  explicit operator bool() const { return number_ >= 0; }

 private:
  int number_ = -1;
};

/// Anonymous memory that can be handed to another process; its size is sealed.
/// @errors kIo
[[nodiscard]] Result<Descriptor> make_shared_memory(std::size_t bytes);

/// A peer's descriptor is memory of exactly that size which nobody can shrink under our feet.
/// @errors kCorrupt
[[nodiscard]] Result<void> check_shared_memory(const Descriptor& memory, std::size_t bytes);

/// A mapping of shared memory; unmapped by its owner.
class Mapping {
 public:
  Mapping() = default;
  /// @param offset, bytes whole pages
  /// @param twice a second time right behind, so that a ring has no seam
  /// @errors kIo
  [[nodiscard]] static Result<Mapping> map(const Descriptor& memory, std::size_t offset,
                                           std::size_t bytes, bool twice = false);
  Mapping(Mapping&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Mapping();

  std::byte* data() const { return bytes_.data(); }

 private:
  std::span<std::byte> bytes_;
};

}  // namespace moesaic::transport
