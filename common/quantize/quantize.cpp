#include "common/quantize/quantize.hpp"

#include <algorithm>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "common/quantize/panel_encoder.hpp"
#include "common/quantize/tasks.hpp"

namespace moesaic {
namespace {

/// The factor of kCalibrated; null for the other methods.
Result<std::shared_ptr<const InputFactor>> inputs_of(std::size_t cols, const QuantSpec& spec,
                                                     const InputStatistics* stats,
                                                     ThreadPool* pool) {
  if (spec.method != QuantMethod::kCalibrated) return std::shared_ptr<const InputFactor>();
  if (spec.inputs == nullptr && stats == nullptr)
    return fail(Errc::kInvalidArgument, "the method calibrated needs input statistics");
  const std::size_t width = spec.inputs != nullptr ? spec.inputs->cols() : stats->cols;
  if (width != cols)
    return fail(Errc::kShapeMismatch, "input statistics of " + std::to_string(width) +
                                          " columns for a matrix of " + std::to_string(cols));
  if (spec.inputs != nullptr) return spec.inputs;
  return InputFactor::make(*stats, spec.damping, pool);
}

Result<PackedMatrix> quantize(const MatrixView& w, const MatrixView* up, const QuantSpec& spec,
                              const InputStatistics* stats, ThreadPool* pool) {
  for (const CodePair pair : spec.code_pairs)
    if (!is_valid(pair))
      return fail(Errc::kInvalidArgument, "code pair " + std::to_string(pair.scale) + "/" +
                                              std::to_string(pair.zero) +
                                              ": codes are not within 15 bits");
  MOESAIC_TRY(const auto inputs, inputs_of(w.cols, spec, stats, pool));
  PackedMatrix packed;
  packed.format = spec.format;
  packed.rows = w.rows;
  packed.cols = w.cols;
  packed.gate_up = up != nullptr;
  auto memory = std::make_shared<AlignedBuffer>(AlignedBuffer::uninitialized(packed.bytes()));
  const PanelRows rows(w, up);
  const PanelEncoder encoder(rows, spec, packed, inputs.get());
  // The first bad row of the matrix, whichever thread meets one first.
  std::mutex mutex;
  std::optional<BadRow> first;
  for_each_task(pool, packed.panels(), [&](std::size_t p) {
    auto bad = encoder.encode(p, memory->data() + p * packed.panel_bytes());
    if (!bad) return;
    bad->row += p * 32;
    const std::lock_guard lock(mutex);
    if (!first || bad->row < first->row) first = std::move(bad);
  });
  if (first) return tl::make_unexpected(std::move(first->error));
  packed.data = memory->data();
  packed.owner = std::move(memory);
  return packed;
}

}  // namespace

Result<PackedMatrix> quantize_matrix(const MatrixView& w, const QuantSpec& spec,
                                     const InputStatistics* stats, ThreadPool* pool) {
  if (!is_integer(spec.format))
    return pack_matrix(w, spec.format == WeightFormat::kF32 ? Compute::kF32 : Compute::kBf16);
  return quantize(w, nullptr, spec, stats, pool);
}

Result<PackedMatrix> quantize_gate_up(const MatrixView& gate, const MatrixView& up,
                                      const QuantSpec& spec, const InputStatistics* stats,
                                      ThreadPool* pool) {
  if (!is_integer(spec.format))
    return pack_gate_up(gate, up,
                        spec.format == WeightFormat::kF32 ? Compute::kF32 : Compute::kBf16);
  return quantize(gate, &up, spec, stats, pool);
}

}  // namespace moesaic
