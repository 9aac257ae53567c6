#pragma once

#include <memory>

#include "common/engine/dispatch.hpp"
#include "common/engine/expert_backend.hpp"
#include "common/model/expert_table.hpp"

namespace moesaic {

/// All experts in this process: a function call, no copy between them and the engine.
class LocalExperts final : public ExpertBackend {
 public:
  LocalExperts(const ModelConfig& config, std::shared_ptr<const RouterWeights> gates,
               std::shared_ptr<const ExpertTable> table, ThreadPool& pool);

  Result<void> submit(const MoeStep& step, std::size_t slot) override;
  Result<void> gather(const TakeSum& take, std::size_t slot) override;
  void set_taps(TapSink* taps) override { dispatch_.set_taps(taps); }

 private:
  Dispatch dispatch_;
  std::shared_ptr<const ExpertTable> table_;
  ThreadPool& pool_;
  ExpertScratch scratch_;
  MoeStep step_;
  Choices choices_;
};

}  // namespace moesaic
