#include "common/engine/local_experts.hpp"

namespace moesaic {

LocalExperts::LocalExperts(const ModelConfig& config, std::shared_ptr<const RouterWeights> gates,
                           std::shared_ptr<const ExpertTable> table, ThreadPool& pool)
    : dispatch_(config, std::move(gates)), table_(std::move(table)), pool_(pool) {}

Result<void> LocalExperts::submit(const MoeStep& step, std::size_t) {
  step_ = step;
  return {};
}

Result<void> LocalExperts::gather(const TakeSum& take, std::size_t) {
  dispatch_.choose(step_, pool_, choices_);
  for (std::size_t m = 0; m < kModalities; ++m) {
    const auto& choice = choices_[m];
    if (choice.rows.empty()) continue;
    const ExpertCall call{step_.layer, static_cast<Modality>(m), choice.x,     choice.rows,
                          choice.ids,  choice.weights,           choice.chosen};
    MOESAIC_TRY(const auto nodes, table_->run(call, scratch_, pool_));
    for_rows(pool_, nodes.size(), [&](std::size_t i) {
      take(choice.rows[nodes[i].row], table_->node_form(), nodes[i].value);
    });
  }
  return {};
}

}  // namespace moesaic
