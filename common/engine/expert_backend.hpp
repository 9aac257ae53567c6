#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "common/base/result.hpp"
#include "common/base/trace_context.hpp"
#include "common/kernels/compute.hpp"
#include "common/model/config.hpp"
#include "common/model/taps.hpp"

namespace moesaic {

/// What a step tells whoever works for it.
struct StepContext {
  using Clock = std::chrono::steady_clock;
  std::uint32_t number = 0;                               ///< of the engine's steps
  std::uint32_t requests = 1;                             ///< in the step
  Clock::time_point deadline = Clock::time_point::max();  ///< earliest of the requests in the step
  /// Earliest of all the requests the engine has: until then a missing shard is waited for.
  Clock::time_point patience = Clock::time_point::max();
  TraceContext trace;  ///< of one traced request of the step, if any
};

/// The rows of one step (or of one half of it) that go through the experts of one layer.
struct MoeStep {
  std::uint32_t layer = 0;
  Operand x;                           ///< [rows, hidden] of the whole batch, in operand form
  std::span<const Modality> modality;  ///< per row of x
  StepContext context{};
  Operand quantized{};  ///< x for integer products, or empty; experts of the same block read it
};

/// Takes the routed sum of one row, [hidden] values as f32 or Bf16 (`form`), valid during the call.
/// Called by threads of the pool, for different rows at once.
using TakeSum = std::function<void(std::size_t row, Compute form, const void* sum)>;

/// The seam that makes the deployment free: experts in this process, behind shards, or behind a
/// router, all with the same bits. Called on the engine thread only, but for `interrupt`. `submit`
/// starts a layer in a slot, `gather` ends it, and between them the caller may compute something
/// else, the other slot's part included.
class ExpertBackend {
 public:
  virtual ~ExpertBackend() = default;
  /// How many layers may be under way at once; a single one where the experts run on this thread.
  virtual std::size_t slots() const { return 1; }
  /// A step begins: what an earlier one left open is abandoned, and a new topology may be used.
  virtual void begin_step() {}
  /// Starts one layer. `step.x` and `step.quantized` must stay valid until `gather` returns or the
  /// next step begins.
  [[nodiscard]] virtual Result<void> submit(const MoeStep& step, std::size_t slot = 0) = 0;
  /// Gives the routed sum of every row to `take`, each once; of some rows only if it fails.
  /// @errors kExpertUnavailable: needed shards did not answer by the step's deadline (or were
  /// missing when its patience ended); kCancelled: interrupted while a shard was missing. After
  /// either the step may be run again.
  [[nodiscard]] virtual Result<void> gather(const TakeSum& take, std::size_t slot = 0) = 0;
  /// Receiver of "router.<layer>.*", or null.
  virtual void set_taps(TapSink* taps) = 0;

  /// Ends `idle`, and a `gather` that waits for a missing shard; holds until `clear_interrupt`. Any
  /// thread.
  virtual void interrupt() {}
  virtual void clear_interrupt() {}
  /// Tends connections while there is no step, until `interrupt`. False: this back end has nothing
  /// to tend, and the caller may sleep.
  virtual bool idle() { return false; }
};

}  // namespace moesaic
