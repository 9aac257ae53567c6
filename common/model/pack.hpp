#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "common/model/pack_file.hpp"
#include "common/model/pack_policy.hpp"
#include "common/model/weights.hpp"
#include "common/quantize/quantize.hpp"

namespace moesaic {

inline constexpr const char* kPackManifest = "manifest.json";
/// Experts of a modality with ids [8 g, 8 g + 8), all layers, share a file.
inline constexpr std::uint32_t kPackGroup = 8;

/// True if the directory holds a finished pack.
bool is_pack(const std::filesystem::path& dir);

/// A directory of weights in kernel layout: manifest.json, a file per owner (decoder.pack,
/// routers.pack, vision.pack, experts-<modality>-<first id>.pack) and what the checkpoint had
/// beside its weights. Files are mapped when first asked for, so each service maps its own only.
/// Thread-safe.
class Pack {
 public:
  /// Reads the manifest. @errors kCorrupt, kUnsupported (version), kShapeMismatch (a pack of
  /// another configuration)
  [[nodiscard]] static Result<std::shared_ptr<const Pack>> open(const std::filesystem::path& dir,
                                                                const ModelConfig& config);

  /// kInt if any matrix of the text side is quantised.
  Compute compute() const { return compute_; }
  WeightFormat expert_format(std::uint32_t layer, Modality modality) const;
  /// What it was written by.
  const PackPolicy& policy() const { return policy_; }

  /// Each maps and populates what it returns; pages are touched in the background as long as this
  /// lives.
  [[nodiscard]] Result<DecoderWeights> decoder(ThreadPool& pool,
                                               const LoadProgress& progress) const;
  [[nodiscard]] Result<RouterWeights> routers() const;
  [[nodiscard]] Result<ExpertWeights> experts(const ExpertFilter& held, ThreadPool& pool,
                                              const LoadProgress& progress) const;
  [[nodiscard]] Result<VisionWeights> vision(ThreadPool& pool, const LoadProgress& progress) const;

  /// Until that is done.
  void wait_warm() const { warmer_.wait(); }

  /// Bytes of all files.
  std::uint64_t bytes() const { return bytes_; }
  /// Compares every tensor of every file with its SHA-256.
  [[nodiscard]] Result<void> verify(ThreadPool& pool, const LoadProgress& progress) const;

 private:
  Pack() = default;
  Result<std::shared_ptr<const PackFile>> file(const std::string& name) const;

  std::filesystem::path dir_;
  ModelConfig config_;
  Compute compute_ = Compute::kBf16;
  PackPolicy policy_;
  std::uint64_t bytes_ = 0;
  std::map<std::string, std::string> index_sha256_;  ///< by file name
  std::vector<std::array<WeightFormat, kModalities>> expert_format_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::shared_ptr<const PackFile>> open_;
  mutable PackWarmer warmer_;
};

/// Gives what a matrix is fed; null: unknown. Called by one thread at a time, layer after layer.
using StatisticsSource =
    std::function<Result<std::shared_ptr<const InputStatistics>>(const WeightId& id)>;

/// What `write_pack` is to do. Matrices that the source has quantised keep their integers and
/// scales; the policy is for the others.
struct PackOptions {
  PackPolicy policy;
  QuantMethod method = QuantMethod::kSearch;
  StatisticsSource statistics;      ///< for kCalibrated; matrices it does not know are searched
  std::string calibration;          ///< names the data behind `statistics`
  std::string source;               ///< names the source in the manifest, e.g. its fingerprint
  std::filesystem::path copy_from;  ///< directory of tokenizer and the like; empty: none
  /// kCalibrated: told when a decoder layer is on disk, with all its experts.
  std::function<void(std::uint32_t layer)> layer_done;
};

/// Copies what a model directory has beside weights, config.json and a pack's own texts: tokenizer,
/// chat format and the like. They are on the disk when it returns.
/// @errors kIo
[[nodiscard]] Result<void> copy_companions(const std::filesystem::path& from,
                                           const std::filesystem::path& to);

/// Bytes of the matrices that a policy makes of a model: what the progress of `write_pack` goes to.
std::uint64_t matrix_bytes(const ModelConfig& config, const PackPolicy& policy);

/// Encodes a model into a pack, one expert group or layer in memory at a time: file after file, or,
/// for kCalibrated, layer after layer, all files growing. What was interrupted goes on with the
/// files or layers that were finished, if source and options are the same, and gives the same
/// bytes.
/// @param progress bytes so far, those of an interrupted call included
/// @param dir empty, absent, or what an interrupted call with the same options left
/// @errors kIo, kInvalidArgument (a directory with something else; a weight that is not finite)
[[nodiscard]] Result<void> write_pack(const ModelConfig& config, std::string_view config_json,
                                      const WeightSource& source, const PackOptions& options,
                                      const std::filesystem::path& dir, ThreadPool& pool,
                                      const LoadProgress& progress);

}  // namespace moesaic
