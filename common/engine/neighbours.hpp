#pragma once

#include <optional>
#include <utility>

#include "common/base/awake_cores.hpp"
#include "common/base/machine.hpp"
#include "common/base/thread_pool.hpp"
#include "common/engine/topology.hpp"

namespace moesaic {

/// What an engine does for those who compute for it on the same machine: its workers get a CPU
/// each, which they lend while the others compute, and on a virtual machine these are kept from
/// halting between one hand-over and the next. Used by the engine's thread, made before that is
/// bound to one CPU.
class Neighbours {
 public:
  explicit Neighbours(ThreadPool& pool) : pool_(pool) {}

  /// Nobody computes. @param topology who will
  void begin_step(const Topology& topology) {
    loan_.reset();
    const bool were = std::exchange(there_, has_neighbours(topology));
    if (there_ && !were) pool_.pin(0);
  }
  void asked() {
    if (!there_) return;
    if (!loan_) loan_.emplace(pool_);
    if (virtual_) awake_.hold();
  }
  void answered() { loan_.reset(); }

 private:
  ThreadPool& pool_;
  const bool virtual_ = on_virtual_machine();
  bool there_ = false;
  std::optional<ThreadPool::Loan> loan_;
  AwakeCores awake_;
};

}  // namespace moesaic
