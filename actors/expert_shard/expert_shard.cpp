#include "actors/expert_shard/expert_shard.hpp"

#include <numeric>

#include "actors/contracts/errors.hpp"
#include "common/kernels/elementwise.hpp"

namespace moesaic {

Result<ExpertOutputPtr> ExpertShardState::run(const ExpertBatch& batch) {
  const std::size_t hidden = parts.config.hidden;
  if (batch.x.size() != batch.rows * hidden)
    return fail(Errc::kShapeMismatch, "expert batch: " + std::to_string(batch.x.size()) +
                                          " values, " + std::to_string(batch.rows) + " rows of " +
                                          std::to_string(hidden) + " expected");
  OperandRows operand;
  const auto x = operand.resize(parts.compute, batch.rows, hidden);
  if (parts.compute == Compute::kF32) {
    std::copy(batch.x.begin(), batch.x.end(), static_cast<float*>(x.data));
  } else {
    to_bf16(batch.x.data(), batch.x.size(), static_cast<Bf16*>(x.data));
  }
  std::vector<std::uint32_t> all(batch.rows);
  std::iota(all.begin(), all.end(), 0U);
  const ExpertCall call{batch.layer, batch.modality, x.view(),    all,
                        batch.ids,   batch.weights,  batch.chosen};
  MOESAIC_TRY(const auto nodes, parts.table->run(call, scratch, *parts.pool));
  ExpertOutput out;
  out.values.resize(nodes.size() * hidden);
  float* values = out.values.data();
  for (const auto& node : nodes) {
    out.row.push_back(node.row);
    out.node.push_back(node.node);
    widen(parts.table->node_form(), node.value, hidden, values);
    values += hidden;
  }
  return std::make_shared<const ExpertOutput>(std::move(out));
}

ExpertShardStatusPtr ExpertShardState::status() const {
  ExpertShardStatus status{parts.name, batches, rows, failed, parts.table->bytes()};
  if (parts.service) {
    const auto served = parts.service->counts();
    status.batches += served.batches;
    status.rows += served.rows;
    status.failed += served.failed;
  }
  return std::make_shared<const ExpertShardStatus>(std::move(status));
}

ExpertShardActor::behavior_type expert_shard(
    ExpertShardActor::stateful_pointer<ExpertShardState> self, ExpertShardParts parts) {
  self->state.parts = std::move(parts);
  return {
      [self](run_atom, const ExpertBatchPtr& batch) -> caf::result<ExpertOutputPtr> {
        auto out = self->state.run(*batch);
        ++self->state.batches;
        if (!out) {
          ++self->state.failed;
          return to_caf(out.error());
        }
        self->state.rows += batch->rows;
        return *out;
      },
      [self](status_atom) { return self->state.status(); },
  };
}

}  // namespace moesaic
