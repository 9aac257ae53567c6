#pragma once

#include <map>
#include <string>

#include "common/model/checkpoint_files.hpp"
#include "common/model/stored_linear.hpp"
#include "common/model/tensor_names.hpp"
#include "common/model/weight_source.hpp"

namespace moesaic {

/// A checkpoint directory as a WeightSource; what `open_checkpoint` returns. Immutable, so
/// thread-safe.
class Checkpoint final : public WeightSource {
 public:
  /// As `open_checkpoint`.
  [[nodiscard]] static Result<std::shared_ptr<const Checkpoint>> open(
      const std::filesystem::path& dir, const ModelConfig& config);

  [[nodiscard]] Result<MatrixRef> get(const WeightId& id) const override;
  std::optional<WeightFormat> packed_format(const WeightId& id) const override;
  [[nodiscard]] Result<PackedMatrix> packed(const WeightId& id) const override;
  void drop_pages() const override {
    for (const auto& file : files_.files) file->drop_pages();
  }

  const TensorLayout& layout() const { return layout_; }
  const CheckpointFiles& files() const { return files_; }
  /// True if an output matrix is stored beside a tied embedding table; it is not used.
  bool has_spare_lm_head() const { return spare_lm_head_; }
  /// The linear that holds a weight, if it is stored quantised; else null.
  const StoredLinear* stored_linear(const WeightId& id) const;

 private:
  Checkpoint() = default;
  Result<void> check(const std::filesystem::path& dir);
  Result<MatrixRef> decoded(const StoredLinear& linear, const StoredPart& part,
                            const WeightId& id) const;
  Result<const StoredLinear*> find_linear(const StoredPart& part, const WeightId& id);

  ModelConfig config_;
  CheckpointFiles files_;
  TensorLayout layout_;
  std::map<std::string, StoredLinear> linears_;  // by the name their floats would have
  bool spare_lm_head_ = false;
};

}  // namespace moesaic
