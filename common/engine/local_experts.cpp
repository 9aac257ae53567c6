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
    MOESAIC_CHECK(
        table_->run(call, scratch_, pool_, [&](std::size_t row, std::uint32_t, const void* sum) {
          take(choice.rows[row], table_->node_form(), sum);
        }));
  }
  return {};
}

}  // namespace moesaic
