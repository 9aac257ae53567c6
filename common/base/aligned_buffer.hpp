#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <utility>
#include <vector>

namespace moesaic {

/// Gives back what AlignedBuffer took: mapped bytes, or a block of the heap.
struct AlignedRelease {
  std::size_t bytes = 0;
  bool mapped = false;
  void operator()(std::byte* p) const;
};

/// Zeroed memory aligned to 64 bytes (2 MiB and huge-page advised from 4 MiB up). Move-only owner.
/// Blocks up to 64 KiB are kept by the thread that frees them, a few of each size, and used again:
/// frames of a step come and go hundreds of times.
/// @errors throws std::bad_alloc
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t bytes);
  /// The same without the zeros: the caller writes every byte.
  static AlignedBuffer uninitialized(std::size_t bytes);
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::move(other.data_)), bytes_(std::exchange(other.bytes_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    data_ = std::move(other.data_);
    bytes_ = std::exchange(other.bytes_, 0);
    return *this;
  }

  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  std::size_t size() const { return bytes_; }

  /// The memory as elements of T.
  template <class T>
  std::span<T> as() {
    return {reinterpret_cast<T*>(data_.get()), bytes_ / sizeof(T)};
  }
  template <class T>
  std::span<const T> as() const {
    return {reinterpret_cast<const T*>(data_.get()), bytes_ / sizeof(T)};
  }

  /// Makes room for at least `bytes`; contents are lost when it grows. What is kept from call to
  /// call so lies in a huge page from 256 KiB on: lines of scattered small pages drive each other
  /// out of L2.
  void reserve(std::size_t bytes) {
    if (bytes > bytes_) *this = scratch(bytes + bytes / 4);
  }

 private:
  static AlignedBuffer scratch(std::size_t bytes);

  std::unique_ptr<std::byte, AlignedRelease> data_;
  std::size_t bytes_ = 0;
};

/// Memory that starts on a cache line, for vectors.
template <class T>
struct LineAllocator {
  using value_type = T;
  static constexpr std::align_val_t kLine{64};

  LineAllocator() = default;
  template <class U>
  LineAllocator(const LineAllocator<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), kLine)); }
  void deallocate(T* p, std::size_t) { ::operator delete(p, kLine); }
  bool operator==(const LineAllocator&) const { return true; }
};
template <class T>
using AlignedVector = std::vector<T, LineAllocator<T>>;

}  // namespace moesaic
