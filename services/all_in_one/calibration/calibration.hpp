#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/quantize/quantize.hpp"
#include "services/all_in_one/calibration/layer_pass.hpp"
#include "services/all_in_one/calibration/memory.hpp"
#include "services/all_in_one/calibration/rows_file.hpp"
#include "services/all_in_one/eval/chat_items.hpp"

namespace moesaic {

/// The first of the kinds of a layer that read the same rows as `kind`; none: their inputs are not
/// looked at.
std::optional<WeightKind> input_kind(const ModelConfig& config, WeightKind kind);

struct CalibrationSettings {
  /// Rows that the statistics of a whole layer count for, beside an expert's own.
  double kappa = 2048;
  /// An expert with fewer rows than this also sees others' for its second matrix.
  std::size_t few_rows = 256;
  /// So many of them at most.
  std::size_t pooled_rows = 4096;
  /// Where the rows that enter a layer are kept while that layer is looked at; none: nowhere.
  std::optional<RowsFile> kept;
  /// Bytes it may use; 0: what the system says is available.
  std::uint64_t memory = 0;
  /// Told after each item how many are encoded, and their tokens: large pictures take a while.
  std::function<void(std::size_t items, std::size_t tokens)> encoded;
};

/// What each matrix of the decoder is fed by a set of conversations, prompts and answers, images
/// included, when all weights are the checkpoint's own in bf16. Layer by layer: the rows of all
/// conversations enter a layer together, and of one layer only are weights and inputs in memory, of
/// one matrix only the moments. One thread; kernels on the pool.
class Calibration {
 public:
  /// Reads every item, encodes its pictures and looks up its tokens. From then on the process gives
  /// large blocks that it frees back to the system.
  /// @param options whose checkpoint; its mode is not looked at
  /// @errors those of opening and of `ItemEncoder` (items by file and line); kTooLarge: it needs
  ///         more memory than there is, with the numbers; kUnsupported: a pack
  [[nodiscard]] static Result<std::unique_ptr<Calibration>> start(
      ModelOptions options, std::span<const ChatItem> items, CalibrationSettings settings = {});

  /// Tokens that are run.
  std::size_t rows() const { return rows_; }
  const CalibrationMemory& memory() const { return memory_; }

  /// Inputs of a decoder matrix; null for vectors, routers, the vision tower and an embedding table
  /// that is not the output matrix as well. Query, key and value have the same; so have gate and
  /// up. An expert's are its own rows', blended with all the layer's: (n own + kappa all) / (n +
  /// kappa); for its second matrix only below `few_rows`, where `all` is what this expert makes of
  /// everyone's rows. `rows` counts its own.
  /// The output matrix's are those of the rows that an answer's tokens are drawn from; it comes
  /// after all layers. The first question about a layer runs the rows through it, and through those
  /// before that were not asked about.
  /// @pre    has_weight(config, id)
  /// @errors those of reading weights, of `run_layer` and of the file of `kept`; kInvalidArgument:
  /// a
  ///         layer before the one asked about last
  [[nodiscard]] Result<std::shared_ptr<const InputStatistics>> for_weight(const WeightId& id);

  /// The file of `kept` goes: nothing will be resumed.
  void forget() const {
    if (settings_.kept) settings_.kept->remove();
  }

 private:
  Calibration(OpenedModel model, CalibrationSettings settings)
      : model_(std::move(model)), settings_(std::move(settings)) {}

  Result<void> embed(const ModelOptions& options, std::span<const ChatItem> items);
  Result<void> enter(std::uint32_t layer);
  Result<InputStatistics> compute(const WeightId& id);
  Result<InputStatistics> second_matrix(const WeightId& id, WeightKind gate, WeightKind up);
  InputStatistics hidden_moment(const PackedMatrix& gate_up,
                                std::span<const std::uint32_t> rows) const;

  OpenedModel model_;
  CalibrationSettings settings_;
  CalibrationMemory memory_;
  std::vector<Sequence> sequences_;
  std::size_t rows_ = 0;
  std::vector<std::uint32_t> all_rows_, answer_rows_;
  std::vector<float> hidden_;  ///< [rows][hidden] what enters layer `next_`
  std::uint32_t next_ = 0;

  // Of layer next_ - 1, once it was entered.
  LayerInputs inputs_;
  std::array<std::vector<std::vector<std::uint32_t>>, kModalities> chosen_by_;
  std::optional<InputStatistics> all_;  ///< of inputs_.feed_forward

  std::optional<WeightId> last_id_;
  std::shared_ptr<const InputStatistics> last_;
};

}  // namespace moesaic
