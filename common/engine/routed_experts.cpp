#include "common/engine/routed_experts.hpp"

#include <algorithm>
#include <cstring>

namespace moesaic {
namespace {

/// Longest wait for the answers of one layer.
constexpr auto kLayerTimeout = std::chrono::seconds(30);

}  // namespace

ExpertPlacement ExpertPlacement::even_ranges(const ModelConfig& config, std::size_t shards) {
  ExpertPlacement placement;
  for (std::size_t m = 0; m < kModalities; ++m)
    for (std::size_t e = 0; e < config.experts[m]; ++e)
      placement.shard[m].push_back(static_cast<std::uint32_t>(e * shards / config.experts[m]));
  return placement;
}

RoutedExperts::RoutedExperts(const ModelConfig& config, std::shared_ptr<const RouterWeights> gates,
                             ExpertPlacement placement,
                             std::unique_ptr<transport::Exchange> exchange, ThreadPool& pool)
    : dispatch_(config, std::move(gates)),
      placement_(std::move(placement)),
      exchange_(std::move(exchange)),
      pool_(pool) {}

Result<void> RoutedExperts::submit(const MoeStep& step) {
  choices_ = &dispatch_.choose(step, pool_);
  compute_ = step.x.compute;
  open_.clear();  // answers of an abandoned step carry older numbers and are dropped
  answers_.clear();
  for (std::size_t m = 0; m < kModalities; ++m) {
    nodes_[m].assign((*choices_)[m].rows.size(), {});
    for (std::uint32_t shard = 0; shard < exchange_->peers(); ++shard)
      MOESAIC_CHECK(send(step, m, shard));
  }
  answers_.reserve(open_.size());
  return {};
}

Result<void> RoutedExperts::send(const MoeStep& step, std::size_t modality, std::uint32_t shard) {
  const auto& choice = (*choices_)[modality];
  ids_ = choice.ids;
  for (auto& id : ids_)
    if (placement_.shard[modality][id] != shard) id = kNoExpert;
  const ExpertCall call{
      step.layer,   static_cast<Modality>(modality), step.x, choice.rows, ids_, choice.weights,
      choice.chosen};
  Question question{next_request_, modality, {}};
  auto frame = make_expert_rows(call, question.rows);
  if (question.rows.empty()) return {};
  frame.sequence = next_request_++;
  MOESAIC_CHECK(exchange_->send(shard, std::move(frame)));
  open_.push_back(std::move(question));
  return {};
}

Result<void> RoutedExperts::take(const transport::Frame& frame) {
  const auto it = std::find_if(open_.begin(), open_.end(),
                               [&](const Question& q) { return q.request == frame.sequence; });
  if (it == open_.end()) return {};
  if (frame.type == transport::FrameType::kFailure) return tl::make_unexpected(read_failure(frame));
  MOESAIC_TRY(auto nodes, read_expert_nodes(frame, dispatch_.config().hidden));
  const std::size_t hidden = dispatch_.config().hidden;
  answers_.push_back(std::move(nodes));
  auto& kept = answers_.back();
  for (std::size_t i = 0; i < kept.row.size(); ++i) {
    if (kept.row[i] >= it->rows.size())
      return fail(Errc::kCorrupt, "expert answer: row " + std::to_string(kept.row[i]) + " of " +
                                      std::to_string(it->rows.size()));
    nodes_[it->modality][it->rows[kept.row[i]]].push_back(
        {kept.node[i], kept.values.data() + i * hidden});
  }
  open_.erase(it);
  return {};
}

Result<void> RoutedExperts::gather(float* out) {
  const auto deadline = std::chrono::steady_clock::now() + kLayerTimeout;
  while (!open_.empty()) {
    auto received = exchange_->receive(deadline);
    if (!received) return fail("expert shards", received.error());
    MOESAIC_CHECK(take(received->frame));
  }
  const auto& config = dispatch_.config();
  const std::size_t hidden = config.hidden;
  for (std::size_t m = 0; m < kModalities; ++m) {
    const auto& choice = (*choices_)[m];
    const auto leaves = expert_tree_leaves(config.experts[m]);
    for (std::size_t i = 0; i < choice.rows.size(); ++i) {
      const auto left =
          merge_tree(nodes_[m][i], choice.chosen[i], leaves, hidden, compute_ == Compute::kBf16);
      if (left != 1 || nodes_[m][i][0].node != 1)
        return fail(Errc::kCorrupt, "expert answers leave " + std::to_string(left) +
                                        " nodes for a row, expected the root");
      std::memcpy(out + choice.rows[i] * hidden, nodes_[m][i][0].value, hidden * sizeof(float));
    }
  }
  return {};
}

}  // namespace moesaic
