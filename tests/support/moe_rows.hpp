#pragma once

#include <vector>

#include "common/engine/local_experts.hpp"
#include "common/engine/model_loader.hpp"
#include "common/kernels/elementwise.hpp"
#include "tests/support/kernel_values.hpp"

namespace moesaic::test {

/// Rows of every MoE layer, both modalities mixed.
class MoeRows {
 public:
  MoeRows(const LoadedModel& model, std::size_t rows) : model_(model) {
    const auto values = gaussian(rows * model.config.hidden, 11);
    const auto out = x_.resize(model.compute, rows, model.config.hidden);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (model.compute == Compute::kF32) {
        static_cast<float*>(out.data)[i] = values[i];
      } else {
        static_cast<Bf16*>(out.data)[i] = f32_to_bf16(values[i]);
      }
    }
    for (std::size_t r = 0; r < rows; ++r)
      modality_.push_back(r % 3 == 1 ? Modality::kVision : Modality::kText);
  }

  /// The sums of all layers through a back end; a failure is the test's.
  Result<std::vector<float>> run(ExpertBackend& backend, StepContext context = {}) const {
    const std::size_t hidden = model_.config.hidden, size = modality_.size() * hidden;
    std::vector<float> all;
    backend.begin_step();
    for (std::uint32_t layer = 0; layer < model_.config.layers; ++layer) {
      if (!model_.config.layer_is_moe[layer]) continue;
      MOESAIC_CHECK(backend.submit({layer, x_.view(), modality_, context}));
      all.resize(all.size() + size);
      float* const out = all.data() + all.size() - size;
      MOESAIC_CHECK(backend.gather([=](std::size_t row, Compute form, const void* sum) {
        widen(form, sum, hidden, out + row * hidden);
      }));
      ++context.number;
    }
    return all;
  }
  std::vector<float> local() const {
    LocalExperts backend(model_.config, model_.gates, model_.experts.front(), *model_.pool);
    return *run(backend);
  }

 private:
  const LoadedModel& model_;
  OperandRows x_;
  std::vector<Modality> modality_;
};

}  // namespace moesaic::test
