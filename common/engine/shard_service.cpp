#include "common/engine/shard_service.hpp"

#include "common/engine/expert_frames.hpp"

namespace moesaic {

ShardService::ShardService(const ModelConfig& config, std::shared_ptr<const ExpertTable> table,
                           Compute compute, std::shared_ptr<transport::ServiceEnd> link,
                           unsigned threads)
    : table_(std::move(table)),
      link_(std::move(link)),
      thread_(
          [this, hidden = config.hidden, compute, threads] { serve(hidden, compute, threads); }) {}

ShardService::~ShardService() { link_->close(); }

void ShardService::serve(std::uint32_t hidden, Compute compute, unsigned threads) {
  ThreadPool pool(threads);
  ExpertScratch scratch;
  const auto answer = [&](const transport::Frame& question) -> Result<transport::Frame> {
    MOESAIC_TRY(const auto rows, read_expert_rows(question, hidden, compute));
    MOESAIC_TRY(const auto nodes, table_->run(rows.call, scratch, pool));
    rows_ += rows.rows.size();
    return make_expert_nodes(nodes, hidden, compute);
  };
  for (auto question = link_->next(); question; question = link_->next()) {
    auto result = answer(*question);
    if (!result) ++failed_;
    ++batches_;
    auto frame = result ? std::move(*result) : make_failure(result.error());
    frame.sequence = question->sequence;
    frame.layer = question->layer;
    frame.modality = question->modality;
    link_->answer(std::move(frame));
  }
}

}  // namespace moesaic
