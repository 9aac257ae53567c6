#include "common/model/pack.hpp"

#include <algorithm>
#include <boost/json.hpp>

#include "common/base/read_file.hpp"
#include "common/model/pack_layout.hpp"
#include "common/model/sha256.hpp"

namespace moesaic {
namespace {

namespace json = boost::json;

constexpr std::size_t kLargestManifest = std::size_t{16} << 20;

/// Takes tensors from a file, remembering the first error and what was taken.
class Taker {
 public:
  Taker(const PackFile& file, PackWarmer* warmer) : file_(file), warmer_(warmer) {}

  void matrix(const std::string& name, PackedMatrix& w, std::size_t rows, std::size_t cols,
              bool gate_up) {
    take(name, w, file_.matrix(name, rows, cols, gate_up));
  }
  void values(const std::string& name, AlignedVector<float>& out, std::size_t count) {
    take(name, out, file_.values(name, count));
  }
  /// Maps and reads everything taken since the last call.
  Result<void> finish(ThreadPool& pool, const PackProgress& progress) {
    if (error_) return tl::make_unexpected(std::move(*error_));
    MOESAIC_CHECK(file_.populate(entries_, pool, warmer_, progress));
    entries_.clear();
    return {};
  }

 private:
  template <class T>
  void take(const std::string& name, T& out, Result<T> found) {
    if (!found) {
      if (!error_) error_ = std::move(found).error();
      return;
    }
    out = std::move(*found);
    entries_.push_back(file_.find(name));
  }

  const PackFile& file_;
  PackWarmer* warmer_;
  std::vector<const PackEntry*> entries_;
  std::optional<Error> error_;
};

/// Progress of one file as that of a whole load.
PackProgress part_of(const LoadProgress& progress, std::uint64_t before, const std::string& what) {
  if (!progress) return {};
  return [&progress, before, what](std::uint64_t done, std::uint64_t) {
    progress(before + done, what);
  };
}

/// The rules of a manifest. @errors throws if something is missing; kUnsupported
Result<PackPolicy> read_policy(const json::value& rules, const std::string& name) {
  PackPolicy policy;
  for (const auto& value : rules.as_array()) {
    const auto component = json::value_to<std::string>(value.at("component"));
    const auto format = parse_format(json::value_to<std::string>(value.at("format")));
    const auto* const known = std::find(kComponentNames.begin(), kComponentNames.end(), component);
    if (known == kComponentNames.end() || !format)
      return fail(Errc::kUnsupported, name + ": a rule for component \"" + component +
                                          "\" that this program does not know");
    policy.add({static_cast<Component>(known - kComponentNames.begin()),
                value.at("first_layer").to_number<std::uint32_t>(),
                value.at("last_layer").to_number<std::uint32_t>(), *format});
  }
  return policy;
}

}  // namespace

bool is_pack(const std::filesystem::path& dir) {
  std::error_code error;
  return std::filesystem::exists(dir / kPackManifest, error);
}

Result<std::shared_ptr<const Pack>> Pack::open(const std::filesystem::path& dir,
                                               const ModelConfig& config) try {
  const auto name = (dir / kPackManifest).string();
  MOESAIC_TRY(const auto text, read_file(name, kLargestManifest));
  MOESAIC_TRY(const auto own_config, read_file(dir / "config.json", kLargestManifest));
  const auto root = json::parse(text);
  const auto version = root.at("version").to_number<std::uint32_t>();
  if (version != kPackVersion)
    return fail(Errc::kUnsupported, name + ": pack version " + std::to_string(version) +
                                        ", this program reads " + std::to_string(kPackVersion));
  if (json::value_to<std::string>(root.at("config_sha256")) != sha256_hex(own_config))
    return fail(Errc::kShapeMismatch,
                name + ": a pack of another model than config.json beside it");
  const std::shared_ptr<Pack> pack(new Pack);
  pack->dir_ = dir;
  pack->config_ = config;
  pack->compute_ = root.at("quantized").as_bool() ? Compute::kInt : Compute::kBf16;
  MOESAIC_TRY(pack->policy_, read_policy(root.at("policy"), name));
  for (const auto& file : root.at("files").as_array()) {
    pack->index_sha256_[json::value_to<std::string>(file.at("name"))] =
        json::value_to<std::string>(file.at("index_sha256"));
    pack->bytes_ += file.at("bytes").to_number<std::uint64_t>();
  }
  for (const auto& layer : root.at("expert_formats").as_array()) {
    auto& formats = pack->expert_format_.emplace_back();
    for (std::size_t m = 0; m < kModalities; ++m) {
      const auto format = parse_format(json::value_to<std::string>(layer.at(m)));
      if (!format) return fail(Errc::kUnsupported, name + ": an expert format is unknown");
      formats[m] = *format;
    }
  }
  if (pack->expert_format_.size() < config.layers)
    return fail(Errc::kShapeMismatch, name + ": " + std::to_string(pack->expert_format_.size()) +
                                          " layers, the configuration has " +
                                          std::to_string(config.layers));
  return std::shared_ptr<const Pack>(pack);
} catch (const std::exception& e) {
  return fail(Errc::kCorrupt, (dir / kPackManifest).string() + ": " + e.what());
}

Result<std::shared_ptr<const PackFile>> Pack::file(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  if (const auto at = open_.find(name); at != open_.end()) return at->second;
  const auto known = index_sha256_.find(name);
  if (known == index_sha256_.end())
    return fail(Errc::kNotFound, (dir_ / kPackManifest).string() + ": no file " + name);
  MOESAIC_TRY(auto file, PackFile::open(dir_ / name));
  if (file->index_sha256() != known->second)
    return fail(Errc::kCorrupt, file->path().string() + ": not the file that " + kPackManifest +
                                    " names (another pack's?)");
  open_[name] = file;
  return file;
}

WeightFormat Pack::expert_format(std::uint32_t layer, Modality modality) const {
  return expert_format_[layer][static_cast<std::size_t>(modality)];
}

Result<DecoderWeights> Pack::decoder(ThreadPool& pool, const LoadProgress& progress) const {
  MOESAIC_TRY(const auto source, file("decoder.pack"));
  Taker taker(*source, &warmer_);
  DecoderWeights weights;
  const std::size_t vocab = config_.vocab_size, hidden = config_.hidden;
  taker.matrix("embedding", weights.embedding, vocab, hidden, false);
  if (!config_.tie_word_embeddings) taker.matrix("lm_head", weights.lm_head, vocab, hidden, false);
  taker.values("final_norm", weights.final_norm, hidden);
  weights.layers.resize(config_.layers);
  for (std::uint32_t layer = 0; layer < config_.layers; ++layer)
    pack_layout::visit_layer(config_, layer, weights.layers[layer], taker);
  MOESAIC_CHECK(taker.finish(pool, part_of(progress, 0, "decoder")));
  if (config_.tie_word_embeddings) weights.lm_head = weights.embedding;
  return weights;
}

Result<RouterWeights> Pack::routers() const {
  MOESAIC_TRY(const auto source, file("routers.pack"));
  Taker taker(*source, &warmer_);
  RouterWeights weights;
  weights.layers.resize(config_.layers);
  weights.expert_format.assign(expert_format_.begin(), expert_format_.begin() + config_.layers);
  for (std::uint32_t layer = 0; layer < config_.layers; ++layer)
    if (config_.layer_is_moe[layer])
      for (const auto modality : {Modality::kText, Modality::kVision})
        pack_layout::visit_router(config_, layer, modality,
                                  weights.layers[layer][static_cast<std::size_t>(modality)], taker);
  ThreadPool alone(1);
  MOESAIC_CHECK(taker.finish(alone, {}));
  return weights;
}

Result<ExpertWeights> Pack::experts(const ExpertFilter& held, ThreadPool& pool,
                                    const LoadProgress& progress) const {
  ExpertWeights weights;
  weights.layers.resize(config_.layers);
  for (std::uint32_t layer = 0; layer < config_.layers; ++layer)
    if (config_.layer_is_moe[layer])
      for (std::size_t m = 0; m < kModalities; ++m)
        weights.layers[layer][m].resize(config_.experts[m]);
  std::uint64_t before = 0;
  for (const auto modality : {Modality::kText, Modality::kVision}) {
    const auto m = static_cast<std::size_t>(modality);
    for (std::uint32_t first = 0; first < config_.experts[m]; first += kPackGroup) {
      std::shared_ptr<const PackFile> source;
      std::optional<Taker> taker;
      std::uint64_t bytes = 0;
      // In the order of the file: layer by layer.
      for (std::uint32_t layer = 0; layer < config_.layers; ++layer) {
        if (!config_.layer_is_moe[layer]) continue;
        for (auto e = first; e < std::min(first + kPackGroup, config_.experts[m]); ++e) {
          if (!held(layer, modality, e)) continue;
          if (!taker) {
            MOESAIC_TRY(source, file(pack_layout::expert_file(modality, first)));
            taker.emplace(*source, &warmer_);
          }
          auto& expert = weights.layers[layer][m][e];
          pack_layout::visit_ffn(pack_layout::expert_name(layer, modality, e),
                                 config_.expert_width[m], config_.hidden, expert, *taker);
          bytes += expert.gate_up.bytes() + expert.down.bytes();
        }
      }
      if (!taker) continue;
      const auto what = std::string(pack_layout::modality_name(modality)) + " experts from " +
                        std::to_string(first);
      MOESAIC_CHECK(taker->finish(pool, part_of(progress, before, what)));
      before += bytes;
    }
  }
  return weights;
}

Result<VisionWeights> Pack::vision(ThreadPool& pool, const LoadProgress& progress) const {
  MOESAIC_TRY(const auto source, file("vision.pack"));
  Taker taker(*source, &warmer_);
  VisionWeights weights;
  pack_layout::VisionVisit(config_, taker).all(weights);
  MOESAIC_CHECK(taker.finish(pool, part_of(progress, 0, "vision tower")));
  return weights;
}

Result<void> Pack::verify(ThreadPool& pool, const LoadProgress& progress) const {
  std::uint64_t done = 0;
  for (const auto& [name, hash] : index_sha256_) {
    MOESAIC_TRY(const auto source, file(name));
    const auto& entries = source->entries();
    std::mutex mutex;
    std::optional<Error> error;
    pool.parallel_for(entries.size(), [&](std::size_t i) {
      auto good = source->verify(entries[i]);
      const std::lock_guard lock(mutex);
      done += entries[i].bytes;
      if (progress) progress(done, name);
      if (!good && !error) error = std::move(good).error();
    });
    if (error) return tl::make_unexpected(std::move(*error));
  }
  return {};
}

}  // namespace moesaic
