#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/quantize/quantize.hpp"
#include "services/all_in_one/calibration/layer_pass.hpp"
#include "services/all_in_one/eval/chat_items.hpp"

namespace moesaic {

struct CalibrationSettings {
  /// Rows that the statistics of a whole layer count for, beside an expert's own.
  double kappa = 2048;
  /// An expert with fewer rows than this also sees others' for its second matrix.
  std::size_t few_rows = 256;
  /// So many of them at most.
  std::size_t pooled_rows = 4096;
};

/// What each matrix of the decoder is fed by a set of conversations, prompts and answers, images
/// included, in bf16. Goes through the model layer by layer: in memory are one layer's weights, and
/// of every token the hidden state and the inputs of one layer (28B: 25 KB a token); the moments of
/// a matrix are computed when it is asked for. One thread; kernels on the pool.
class Calibration {
 public:
  /// Reads every item and encodes its pictures.
  /// @param options whose checkpoint; its mode is not looked at
  /// @errors those of opening and of `ItemEncoder`; kTooLarge: more tokens than memory holds
  [[nodiscard]] static Result<std::unique_ptr<Calibration>> start(
      ModelOptions options, std::span<const ChatItem> items, CalibrationSettings settings = {});

  /// Tokens that are run.
  std::size_t rows() const { return rows_; }
  /// Tokens that chose the expert, in the layer asked for last.
  std::size_t rows_of(Modality modality, std::uint32_t expert) const {
    return chosen_by_[static_cast<std::size_t>(modality)].at(expert).size();
  }

  /// Inputs of a decoder matrix; null for weights that are not in a layer, vectors and routers.
  /// Query, key and value have the same; so have gate and up. The first weight of a layer takes
  /// the time of running it.
  /// An expert's are its own rows', blended with all the layer's: (n own + kappa all) / (n +
  /// kappa); for its second matrix only below `few_rows`, where `all` is what this expert makes of
  /// everyone's rows.
  /// @param id layers in ascending order
  /// @errors kInvalidArgument: an earlier layer than before; those of `run_layer`
  [[nodiscard]] Result<std::shared_ptr<const InputStatistics>> for_weight(const WeightId& id);

 private:
  explicit Calibration(OpenedModel model, CalibrationSettings settings)
      : model_(std::move(model)), settings_(settings) {}

  Result<void> add_items(const ModelOptions& options, std::span<const ChatItem> items);
  Result<void> enter(std::uint32_t layer);
  InputStatistics moment(std::span<const Bf16> values, std::size_t cols,
                         std::span<const std::uint32_t> rows) const;
  InputStatistics expert_input(const std::vector<std::uint32_t>& rows);
  InputStatistics expert_down(const WeightId& id, const std::vector<std::uint32_t>& rows) const;
  InputStatistics hidden_moment(const PackedMatrix& gate_up,
                                std::span<const std::uint32_t> rows) const;

  OpenedModel model_;
  CalibrationSettings settings_;
  std::vector<Sequence> sequences_;
  std::size_t rows_ = 0;
  std::vector<std::uint32_t> all_rows_;
  std::vector<float> hidden_;  ///< [rows, hidden] what enters layer next_

  std::uint32_t next_ = 0;
  std::optional<LayerPass> pass_;
  std::array<std::vector<std::vector<std::uint32_t>>, kModalities> chosen_by_;
  std::optional<InputStatistics> layer_input_;  ///< of all rows, for blending
  std::optional<WeightId> last_id_;
  std::shared_ptr<const InputStatistics> last_;
};

}  // namespace moesaic
