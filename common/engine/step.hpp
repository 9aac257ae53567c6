#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/base/thread_pool.hpp"
#include "common/engine/expert_backend.hpp"
#include "common/kernels/attention.hpp"
#include "common/kernels/linear.hpp"
#include "common/kernels/quantize_rows.hpp"
#include "common/kernels/rope.hpp"
#include "common/kv_cache/kv_cache.hpp"
#include "common/model/activations.hpp"
#include "common/model/config.hpp"
#include "common/model/taps.hpp"
#include "common/model/weights.hpp"
#include "common/trace/tracer.hpp"

namespace moesaic {

/// Consecutive new tokens of one sequence in a step.
struct StepPart {
  std::size_t first_row = 0;  ///< in the step
  std::size_t rows = 0;
  std::size_t first_index = 0;  ///< index in the sequence of its first token
  std::span<const KvBlock>
      blocks;  ///< blocks of the sequence, enough for first_index + rows tokens
};

/// One pass of the decoder over rows of many sequences.
struct StepBatch {
  std::vector<std::int32_t> ids;                       ///< per row
  std::vector<std::array<std::int32_t, 3>> positions;  ///< per row (t, h, w)
  std::vector<Modality> modality;                      ///< per row
  std::vector<const float*> features;  ///< per row: [hidden] visual embedding, or null: the table's
  std::vector<StepPart> parts;         ///< cover all rows
  std::vector<std::uint32_t> logit_rows;  ///< rows whose logits are wanted
  StepContext context;

  void clear();
};

/// When a step is cut in two, so that the attention of one half overlaps the experts of the other.
/// Only where the experts are elsewhere (ExpertBackend::slots); no bit depends on it.
struct MicroBatching {
  std::size_t rows = 64;      ///< from so many rows on; 0: never
  std::size_t sequences = 8;  ///< or from so many sequences on; 0: never
};

/// The text decoder: embeddings, layers over paged KV (of the cache's own type), experts through
/// the back end, logits. A row's result depends on that row and its sequence's cache alone. One
/// engine thread; kernels on the pool.
/// @source transformers' modeling_ernie4_5_vl_moe.py; numbers in tests/golden/tiny
class DecoderStep {
 public:
  DecoderStep(const ModelConfig& config, std::shared_ptr<const DecoderWeights> weights,
              Compute compute, KvCache& kv, ExpertBackend& experts, ThreadPool& pool,
              MicroBatching micro = {}, Tracer tracer = {});

  /// Runs the batch; keys and values of its rows are in the cache afterwards.
  /// @return [logit_rows, vocab] f32, valid until the next run
  /// @errors those of the expert back end; the step may then be run again
  [[nodiscard]] Result<std::span<const float>> run(const StepBatch& batch);

  void set_taps(TapSink* taps);

  /// Shape of the attention over a cache of that type.
  static AttentionShape attention_shape(const ModelConfig& config, Compute kv);

 private:
  /// Rows [first, first + rows) of a step and what must outlive the other half's turn.
  struct Half {
    std::size_t slot = 0;
    std::size_t first = 0;
    std::size_t rows = 0;
    std::span<const Modality> modality;
    std::vector<StepPart> parts;  ///< rows counted from `first`
    FloatRows x;                  ///< residual stream
    FloatRows shared, cos, sin;
    OperandRows normed;       ///< what the router reads, and weights of no integer format
    QuantizedRows quantized;  ///< the same rows, as weights of integer formats read them
    Span span;                ///< of the layer's experts, if the step is traced
  };

  void split(const StepBatch& batch);
  void embed(const StepBatch& batch, Half& half);
  void attend(Half& half, std::uint32_t layer);
  void store_kv(const StepPart& part, std::uint32_t layer, const RopeAngles& angles);
  Result<void> begin_feed_forward(const StepBatch& batch, Half& half, std::uint32_t layer);
  Result<void> end_feed_forward(Half& half, std::uint32_t layer);
  void logits(const StepBatch& batch);
  void norm_row(const float* x, const AlignedVector<float>& weight, const OperandOut& out,
                std::size_t row) const;
  Operand norm(const AlignedVector<float>& weight, const PackedMatrix& reader, bool keep,
               Half& half);
  void tap(const std::string& name, const FloatRows& x, std::size_t first, std::size_t width,
           bool fine);
  void tap_operand(const std::string& name, const Operand& x);
  void tap_heads(const std::string& name, std::size_t first, std::size_t heads);

  ModelConfig config_;
  std::shared_ptr<const DecoderWeights> weights_;
  Compute compute_;
  KvCache& kv_;
  ExpertBackend& experts_;
  ThreadPool& pool_;
  AttentionShape shape_;
  TextRope rope_;
  TapSink* taps_ = nullptr;

  MicroBatching micro_;
  Tracer tracer_;
  std::array<Half, 2> halves_;
  std::size_t used_ = 1;  // halves of this step
  FloatRows qkv_, branch_, logits_;
  std::vector<float> widened_;  // an operand as taps want it
  OperandRows attended_, last_;
  FfnScratch ffn_;
  std::vector<void*> ffn_out_;
  std::vector<const std::byte*> pages_;
  std::vector<AttentionTask> tasks_;
};

}  // namespace moesaic
