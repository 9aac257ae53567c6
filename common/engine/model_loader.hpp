#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/base/thread_pool.hpp"
#include "common/cluster/placement_table.hpp"
#include "common/engine/expert_backend.hpp"
#include "common/kernels/compute.hpp"
#include "common/model/expert_table.hpp"
#include "common/model/pack.hpp"
#include "common/model/weight_plan.hpp"
#include "common/model/weight_source.hpp"
#include "common/model/weights.hpp"

namespace moesaic {

/// Which weights, in which precision, on how many threads: what serve, generate, forward and bench
/// have in common.
struct ModelOptions {
  std::string model;             ///< directory of a checkpoint or a pack
  std::string synthetic;         ///< or: config.json whose weights come from the formula
  std::string compute = "auto";  ///< f32, bf16, int; auto: as the weights are stored
  unsigned threads = 0;          ///< kernel workers; 0: one per CPU
  std::uint32_t layers = 0;      ///< only the first N layers; 0: all
  bool vision = true;            ///< load the vision tower, too
  std::size_t shards = 1;        ///< expert tables to cut the experts into
  /// Told while loading: bytes done, of how many, and what comes. One thread at a time.
  std::function<void(std::uint64_t, std::uint64_t, const std::string&)> on_progress = {};
};

/// A model in memory, its parts as the services own them.
struct LoadedModel {
  ModelConfig config;
  Compute compute = Compute::kBf16;         ///< of decoder and experts
  Compute vision_compute = Compute::kBf16;  ///< of the vision tower
  std::shared_ptr<ThreadPool> pool;
  std::shared_ptr<const DecoderWeights> decoder;
  std::shared_ptr<const RouterWeights> gates;
  std::vector<std::shared_ptr<const ExpertTable>> experts;  ///< one per shard
  std::shared_ptr<const VisionWeights> vision;              ///< null if not asked for
  std::shared_ptr<const Pack> pack;                         ///< null: a checkpoint
  std::uint64_t mapped_bytes = 0;  ///< of the weights; what is not mapped was copied
};

/// A model whose weights can be read but are not yet: for services that hold a part of them.
/// Checkpoints are brought into kernel layout while they are read, packs are mapped.
struct OpenedModel {
  ModelConfig config;
  Compute compute = Compute::kBf16;         ///< of decoder and experts
  Compute vision_compute = Compute::kBf16;  ///< of the vision tower
  std::shared_ptr<ThreadPool> pool;
  std::shared_ptr<const WeightSource> source;  ///< null: a pack
  std::shared_ptr<const Pack> pack;            ///< null: a checkpoint or the formula

  /// The parts that services own. @errors name file and tensor
  [[nodiscard]] Result<DecoderWeights> decoder(const LoadProgress& progress = {}) const;
  [[nodiscard]] Result<RouterWeights> routers() const;
  [[nodiscard]] Result<ExpertWeights> experts(const ExpertFilter& held,
                                              const LoadProgress& progress = {}) const;
  [[nodiscard]] Result<VisionWeights> vision(const LoadProgress& progress = {}) const;
  /// Sizes of all parts, as they will be held: bf16 unless a pack says otherwise.
  WeightPlan weights() const;
  /// What of it there is to place.
  cluster::ExpertGeometry geometry() const;
};

/// Reads the configuration and opens the files; no weight is touched.
/// @errors kNotFound, kCorrupt, kInvalidArgument
[[nodiscard]] Result<OpenedModel> open_model(const ModelOptions& options);

/// Reads and packs the weights, with a progress line on a terminal.
/// @errors kNotFound, kCorrupt, kShapeMismatch, ...: the text names file and tensor
[[nodiscard]] Result<LoadedModel> load_model(const ModelOptions& options);
/// The same of one that has been opened with these options.
[[nodiscard]] Result<LoadedModel> load_model(const OpenedModel& opened,
                                             const ModelOptions& options);

/// The placement behind `ModelOptions::shards`: even ranges over expert-shard-0, -1, ...
cluster::PlacementTable shard_placement(const ModelConfig& config, Compute compute,
                                        std::size_t shards);

/// "f32", "bf16" or "int".
[[nodiscard]] Result<Compute> parse_compute(const std::string& name);
std::string_view compute_name(Compute compute);

/// The demo model of the source tree or the installation.
std::filesystem::path demo_model_dir();
/// The font for time stamps on video frames where a checkpoint brings none.
std::filesystem::path default_font();

}  // namespace moesaic
