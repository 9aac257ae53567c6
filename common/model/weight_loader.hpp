#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <string>

#include "common/model/weight_encoder.hpp"
#include "common/model/weights.hpp"

namespace moesaic {

/// Reads weights piece by piece, encodes them and reports. Any thread may ask for any piece.
class WeightLoader {
 public:
  /// All are used as long as this lives.
  WeightLoader(const ModelConfig& config, const WeightSource& source, const WeightEncoder& encoder,
               const LoadProgress& progress)
      : config_(config), source_(source), encoder_(encoder), progress_(progress) {}

  /// The embedding table, or the output matrix. @errors those of the source and the encoder; the
  /// text names the weight
  Result<PackedMatrix> matrix(const WeightId& id);
  Result<AlignedVector<float>> values(const WeightId& id) const;
  Result<LayerWeights> decoder_layer(std::uint32_t layer);
  Result<FfnWeights> expert(std::uint32_t layer, Modality modality, std::uint32_t expert);
  Result<RouterGate> router(std::uint32_t layer, Modality modality) const;
  Result<VisionWeights> vision();

  /// Tells what was read. Any thread.
  void report(const std::string& what);
  /// Bytes of matrices that were encoded; `count` adds those of an earlier run.
  std::uint64_t bytes() const { return bytes_; }
  void count(std::uint64_t bytes) { bytes_ += bytes; }
  /// As `WeightSource::drop_pages`.
  void drop_pages() const { source_.drop_pages(); }

 private:
  Result<FfnWeights> ffn(WeightKind gate, WeightKind up, WeightKind down, const WeightId& at);
  Result<PackedMatrix> qkv(std::uint32_t layer);
  /// What is stored quantised, if it is and may stay so; counts it.
  Result<std::optional<PackedMatrix>> kept(const WeightId& id);
  Result<NormWeights> norm(WeightKind weight, WeightKind bias, std::uint32_t block = 0) const;
  Result<LinearWeights> biased(WeightKind weight, WeightKind bias, std::uint32_t block = 0);
  Result<VitBlockWeights> vit_block(std::uint32_t block);

  const ModelConfig& config_;
  const WeightSource& source_;
  const WeightEncoder& encoder_;
  const LoadProgress& progress_;
  std::mutex mutex_;
  std::atomic<std::uint64_t> bytes_ = 0;
};

}  // namespace moesaic
