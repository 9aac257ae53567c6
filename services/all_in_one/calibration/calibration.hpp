#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/quantize/quantize.hpp"
#include "services/all_in_one/calibration/layer_pass.hpp"
#include "services/all_in_one/eval/chat_items.hpp"
#include "services/all_in_one/eval/scratch_file.hpp"

namespace moesaic {

struct CalibrationSettings {
  /// Rows that the statistics of a whole layer count for, beside an expert's own.
  double kappa = 2048;
  /// An expert with fewer rows than this also sees others' for its second matrix.
  std::size_t few_rows = 256;
  /// So many of them at most.
  std::size_t pooled_rows = 4096;
  std::filesystem::path temp_dir = std::filesystem::temp_directory_path();
  /// Told now and then: layers that were run, of how many.
  std::function<void(std::uint32_t layer, std::uint32_t layers)> progress;
};

/// What each matrix of the decoder is fed by a set of conversations, prompts and answers, images
/// included, in bf16. The model is run once, a layer's weights in memory at a time; what its
/// matrices read goes to a temporary file (28B: 15 KB a token and layer), and the moments of a
/// matrix are computed of that when it is asked for, in any order. One thread; kernels on the pool.
class Calibration {
 public:
  /// Reads every item, encodes its pictures and runs the model.
  /// @param options whose checkpoint; its mode is not looked at
  /// @errors those of opening, of `ItemEncoder` (items by file and line), of `run_layer` and of the
  ///         file; kTooLarge: more tokens than memory holds; kUnsupported: a pack
  [[nodiscard]] static Result<std::unique_ptr<Calibration>> run(ModelOptions options,
                                                                std::span<const ChatItem> items,
                                                                CalibrationSettings settings = {});

  /// Tokens that were run.
  std::size_t rows() const { return rows_; }

  /// Inputs of a decoder matrix; null for weights that are not in a layer, vectors and routers.
  /// Query, key and value have the same; so have gate and up.
  /// An expert's are its own rows', blended with all the layer's: (n own + kappa all) / (n +
  /// kappa); for its second matrix only below `few_rows`, where `all` is what this expert makes of
  /// everyone's rows. `rows` counts its own.
  /// @pre    has_weight(config, id)
  /// @errors those of the file and of reading weights
  [[nodiscard]] Result<std::shared_ptr<const InputStatistics>> for_weight(const WeightId& id);

 private:
  /// Where one layer's inputs are in the file.
  struct Stored {
    std::uint64_t attention = 0, attended = 0, feed_forward = 0;
    std::vector<std::int32_t> chosen;
  };
  /// What was computed of the layer looked at last.
  struct Current {
    std::uint32_t layer = 0;
    std::vector<Bf16> feed_forward;
    std::array<std::vector<std::vector<std::uint32_t>>, kModalities> chosen_by;
    std::optional<InputStatistics> all;  ///< of `feed_forward`
  };

  Calibration(OpenedModel model, CalibrationSettings settings, ScratchFile file)
      : model_(std::move(model)), settings_(std::move(settings)), file_(std::move(file)) {}

  Result<std::vector<float>> embed(const ModelOptions& options, std::span<const ChatItem> items);
  Result<void> run_layers(std::vector<float> hidden);
  Result<std::vector<Bf16>> read(std::uint64_t offset, std::size_t cols) const;
  Result<void> look_at(std::uint32_t layer);
  Result<InputStatistics> compute(const WeightId& id);
  Result<InputStatistics> second_matrix(const WeightId& id, WeightKind gate, WeightKind up);
  InputStatistics hidden_moment(const PackedMatrix& gate_up,
                                std::span<const std::uint32_t> rows) const;

  OpenedModel model_;
  CalibrationSettings settings_;
  ScratchFile file_;
  std::vector<Sequence> sequences_;
  std::size_t rows_ = 0;
  std::vector<std::uint32_t> all_rows_;
  std::vector<Stored> layers_;

  std::optional<Current> current_;
  std::optional<WeightId> last_id_;
  std::shared_ptr<const InputStatistics> last_;
};

}  // namespace moesaic
