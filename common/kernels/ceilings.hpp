#pragma once

#include <cstddef>

#include "common/base/thread_pool.hpp"
#include "common/kernels/compute.hpp"
#include "common/kernels/isa.hpp"

namespace moesaic {

/// Reads `bytes` at `data` once on the calling thread in 1, 2 or 4 streams side by side, with the
/// widest loads this CPU has, and does nothing else: what a kernel that streams weights is compared
/// with.
/// @pre data 64-byte aligned, bytes a multiple of 2048
void plain_read(const std::byte* data, std::size_t bytes, unsigned streams);

/// The same shared by all workers, each on its own part.
/// @pre bytes / pool.size() >= 2048
void plain_read(const std::byte* data, std::size_t bytes, unsigned streams, ThreadPool& pool);

/// Plain read bandwidth of memory in GB/s (1e9 bytes): best of 1, 2 and 4 streams over a fresh
/// area; `bytes` should be far beyond the last-level cache. Takes about a second for 512 MiB.
/// @errors throws std::bad_alloc
double measure_read_gbs(ThreadPool& pool, std::size_t bytes);

/// 1e9 operations/s (a multiply-add is two) of all workers together for the instructions with which
/// the products of that level and mode sum: scalar, 8- or 16-lane f32 multiply-add, vdpbf16ps or
/// tdpbf16ps; of integers scalar, vpmaddwd with vpaddd (8 sums of two products), vpdpbusd (16 of
/// four) or tdpbssd.
/// The mean over `seconds`: where other programs share the core of a hyper-thread, what is left of
/// it changes within tenths of seconds. CPU time of the workers is counted, so that losing the core
/// altogether does not lower it. Products follow each other closely; a core whose other
/// hyper-thread uses tiles, too, does 1.4 to 1.6 times as many tile products if they stand eight
/// instructions apart, so that there the peak is an understatement.
/// @pre isa is available
double measure_peak_gops(Isa isa, Compute compute, ThreadPool& pool, double seconds = 0.1);

/// Times passes and tells which of them ran without any thread of the process being put off its
/// core: on shared machines the others say nothing about the kernel. Asks the scheduler for long
/// time slices. Nothing else in the process may run meanwhile.
class PassTimer {
 public:
  explicit PassTimer(ThreadPool& pool);

  /// Runs fn() once.
  /// @return wall seconds; `clean()` tells whether they count
  template <class F>
  double time(F&& fn) {
    start();
    fn();
    return stop();
  }
  bool clean() const { return clean_; }
  /// CPU seconds of the last pass, all threads together: not raised by losing a core, but waiting
  /// asleep is not in it.
  double cpu_seconds() const { return cpu_; }

 private:
  void start();
  double stop();

  ThreadPool& pool_;
  double wall_ = 0, cpu_ = 0;
  long switches_ = 0;
  bool clean_ = false;
};

}  // namespace moesaic
