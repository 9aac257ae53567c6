#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <functional>
#include <optional>

#include "common/base/full_io.hpp"
#include "common/base/read_file.hpp"
#include "common/base/write_file.hpp"
#include "common/model/pack.hpp"
#include "common/model/pack_layout.hpp"
#include "common/model/sha256.hpp"
#include "common/model/weight_list.hpp"
#include "common/model/weight_loader.hpp"
#include "common/model/weight_plan.hpp"

namespace moesaic {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

/// Settings of a pack that is not finished yet.
constexpr const char* kUnfinished = "unfinished.json";
/// Of kCalibrated: layers that are done, and where the files stood then.
constexpr const char* kLayersDone = "layers_done.json";
constexpr std::size_t kLargestText = std::size_t{16} << 20;
constexpr std::size_t kLargestJournal = std::size_t{64} << 20;

/// Encodes as a policy says. Experts are encoded side by side, each on its own thread, unless their
/// inputs are looked at; those and larger matrices by all threads.
class PolicyEncoder final : public WeightEncoder {
 public:
  PolicyEncoder(const PackOptions& options, ThreadPool& pool) : options_(options), pool_(pool) {}
  bool keeps_quantized() const override { return true; }

  Result<PackedMatrix> matrix(const WeightId& id, const MatrixView& w) const override {
    MOESAIC_TRY(const auto how, plan(id));
    return quantize_matrix(w, how.spec, how.stats.get(), how.pool);
  }
  Result<PackedMatrix> gate_up(const WeightId& id, const MatrixView& gate,
                               const MatrixView& up) const override {
    MOESAIC_TRY(const auto how, plan(id));
    return quantize_gate_up(gate, up, how.spec, how.stats.get(), how.pool);
  }

 private:
  struct Plan {
    QuantSpec spec;
    std::shared_ptr<const InputStatistics> stats;
    ThreadPool* pool = nullptr;
  };

  Result<Plan> plan(const WeightId& id) const {
    Plan how;
    how.spec.format = options_.policy.at(component_of(id), id.layer);
    how.spec.method = options_.method;
    if (options_.method != QuantMethod::kCalibrated) {
      how.pool = is_expert(id.kind) ? nullptr : &pool_;
      return how;
    }
    how.pool = &pool_;
    if (is_integer(how.spec.format)) {
      MOESAIC_TRY(how.stats, options_.statistics(id));
    }
    if (!how.stats) how.spec.method = QuantMethod::kSearch;
    return how;
  }

  const PackOptions& options_;
  ThreadPool& pool_;
};

/// Where a bf16 matrix has a weight that is not finite; empty: nowhere. Integer formats have none:
/// their encoders refuse them.
std::string not_finite(const PackedMatrix& w) {
  if (w.format != WeightFormat::kBf16) return {};
  const auto* bits = reinterpret_cast<const std::uint16_t*>(w.data);
  const auto bad = [](std::uint16_t value) { return (value & 0x7f80U) == 0x7f80U; };
  const std::size_t panel_values = w.panel_bytes() / sizeof(std::uint16_t);
  for (std::size_t p = 0; p < w.panels(); ++p) {
    const auto* panel = bits + p * panel_values;
    bool any = false;
    for (std::size_t i = 0; i < panel_values; ++i) any |= bad(panel[i]);
    if (!any) continue;
    // [K/32][2 halves][16 pairs of k][16 rows][2]
    const auto i = static_cast<std::size_t>(std::find_if(panel, panel + panel_values, bad) - panel);
    const auto half = i / 512 % 2, row = i / 2 % 16;
    const auto col = i / 1024 * 32 + i / 32 % 16 * 2 + i % 2;
    return (w.gate_up ? (half == 0 ? "gate, row " : "up, row ") + std::to_string(p * 16 + row)
                      : "row " + std::to_string(p * 32 + half * 16 + row)) +
           ", column " + std::to_string(col);
  }
  return {};
}

std::string not_finite(const AlignedVector<float>& values) {
  const auto bad =
      std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  return bad == values.end() ? std::string() : "value " + std::to_string(bad - values.begin());
}

/// Puts tensors into a file, remembering the first error.
class Giver {
 public:
  explicit Giver(PackFileWriter& file) : file_(file) {}
  void matrix(const std::string& name, PackedMatrix& w, std::size_t, std::size_t, bool) {
    check(name, w);
    if (good_) good_ = file_.add(name, w);
  }
  void values(const std::string& name, const AlignedVector<float>& values, std::size_t) {
    check(name, values);
    if (good_) good_ = file_.add(name, std::span<const float>(values));
  }
  Result<void> result() { return std::move(good_); }

 private:
  template <class Tensor>
  void check(const std::string& name, const Tensor& tensor) {
    if (!good_) return;
    if (const auto where = not_finite(tensor); !where.empty())
      good_ = fail(Errc::kInvalidArgument, name + ", " + where + ": a weight that is not finite");
  }

  PackFileWriter& file_;
  Result<void> good_;
};

class PackWriter {
 public:
  PackWriter(const ModelConfig& config, std::string_view config_json, const WeightSource& source,
             const PackOptions& options, fs::path dir, ThreadPool& pool,
             const LoadProgress& progress)
      : config_(config),
        config_json_(config_json),
        options_(options),
        dir_(std::move(dir)),
        pool_(pool),
        source_(source),
        encoder_(options, pool),
        loader_(config, source, encoder_, progress) {}

  Result<void> run() {
    MOESAIC_CHECK(begin());
    if (options_.method == QuantMethod::kCalibrated) {
      MOESAIC_CHECK(by_layer());
    } else {
      MOESAIC_CHECK(by_file());
    }
    return finish();
  }

 private:
  /// The files that have a part of every decoder layer, and which part.
  struct LayeredFile {
    std::string name;
    std::function<Result<void>(PackFileWriter& out, std::uint32_t layer)> write_layer;
  };

  std::vector<LayeredFile> layered_files() {
    std::vector<LayeredFile> files;
    files.push_back({"decoder.pack", [this](PackFileWriter& out, std::uint32_t layer) {
                       return decoder_layer(out, layer);
                     }});
    files.push_back({"routers.pack", [this](PackFileWriter& out, std::uint32_t layer) {
                       return routers(out, layer);
                     }});
    for (const auto modality : {Modality::kText, Modality::kVision})
      for (std::uint32_t first = 0; first < config_.experts[static_cast<std::size_t>(modality)];
           first += kPackGroup)
        files.push_back({pack_layout::expert_file(modality, first),
                         [=, this](PackFileWriter& out, std::uint32_t layer) {
                           return experts(out, layer, modality, first);
                         }});
    return files;
  }

  Result<void> by_file() {
    for (const auto& layered : layered_files())
      MOESAIC_CHECK(file(layered.name, [&](PackFileWriter& out) -> Result<void> {
        MOESAIC_CHECK(beside_layers(layered.name, out));
        for (std::uint32_t layer = 0; layer < config_.layers; ++layer)
          MOESAIC_CHECK(layered.write_layer(out, layer));
        return {};
      }));
    return file("vision.pack", [this](PackFileWriter& out) { return vision(out); });
  }

  /// All files grow together, so that each layer's inputs are needed once, and not for long.
  Result<void> by_layer() {
    MOESAIC_CHECK(file("vision.pack", [this](PackFileWriter& out) { return vision(out); }));
    loader_.drop_pages();
    const auto layered = layered_files();
    const auto journal = dir_ / kLayersDone;
    std::uint32_t layer = 0;
    std::vector<std::optional<PackFileWriter>> outs;  // none: has its name already
    if (fs::exists(journal)) {
      MOESAIC_TRY(layer, resume(layered, outs));
    } else {
      for (const auto& one : layered) {
        MOESAIC_TRY(auto out, PackFileWriter::create(dir_ / one.name));
        outs.emplace_back(std::move(out));
      }
    }
    for (; layer < config_.layers; ++layer) {
      for (std::size_t i = 0; i < layered.size(); ++i) {
        MOESAIC_CHECK(layered[i].write_layer(*outs[i], layer));
        loader_.drop_pages();
      }
      json::array states;
      for (auto& out : outs) {
        MOESAIC_TRY(auto state, out->suspend());
        states.emplace_back(std::move(state));
      }
      MOESAIC_CHECK(
          write_file(journal, json::serialize(json::object{{"layers", layer + 1},
                                                           {"matrix_bytes", loader_.bytes()},
                                                           {"files", std::move(states)}})));
      if (options_.layer_done) options_.layer_done(layer);
    }
    for (std::size_t i = 0; i < layered.size(); ++i) {
      if (outs[i]) {
        // Last, as what the output matrix is fed is known last.
        MOESAIC_CHECK(beside_layers(layered[i].name, *outs[i]));
        MOESAIC_CHECK(outs[i]->finish());
      }
      MOESAIC_CHECK(list(layered[i].name));
    }
    return {};
  }

  /// The files as they stood when the last whole layer was written. @return layers that are done
  Result<std::uint32_t> resume(const std::vector<LayeredFile>& layered,
                               std::vector<std::optional<PackFileWriter>>& outs) {
    const auto journal = dir_ / kLayersDone;
    const auto damaged = [&] { return fail(Errc::kCorrupt, journal.string() + ": damaged"); };
    MOESAIC_TRY(const auto text, read_file(journal, kLargestJournal));
    boost::system::error_code error;
    const auto value = json::parse(text, error);
    if (error || !value.is_object()) return damaged();
    const auto& object = value.get_object();
    const auto* layers = object.if_contains("layers");
    const auto* bytes = object.if_contains("matrix_bytes");
    const auto* states = object.if_contains("files");
    if (layers == nullptr || !layers->is_int64() || bytes == nullptr || !bytes->is_int64() ||
        states == nullptr || !states->is_array() || states->get_array().size() != layered.size())
      return damaged();
    const auto done = static_cast<std::uint32_t>(layers->get_int64());
    if (done == 0 || done > config_.layers) return damaged();
    for (std::size_t i = 0; i < layered.size(); ++i) {
      const auto path = dir_ / layered[i].name;
      auto& out = outs.emplace_back();
      if (done == config_.layers && fs::exists(path)) continue;
      const auto* state = states->get_array()[i].if_string();
      if (state == nullptr) return damaged();
      MOESAIC_TRY(auto resumed, PackFileWriter::resume(path, std::string_view(*state)));
      out.emplace(std::move(resumed));
    }
    const auto before = static_cast<std::uint64_t>(bytes->get_int64());
    loader_.count(before - std::min(before, loader_.bytes()));
    loader_.report("layer " + std::to_string(done));
    return done;
  }

  /// What must be equal for an interrupted pack to go on.
  std::string settings() const {
    json::array rules;
    for (const auto& rule : options_.policy.rules())
      rules.push_back({{"component", kComponentNames[static_cast<std::size_t>(rule.component)]},
                       {"first_layer", rule.first_layer},
                       {"last_layer", rule.last_layer},
                       {"format", format_name(rule.format)}});
    constexpr std::array kMethods = {"absmax", "search", "calibrated"};
    return json::serialize(
        json::object{{"version", kPackVersion},
                     {"config_sha256", sha256_hex(config_json_)},
                     {"source", options_.source},
                     {"method", kMethods[static_cast<std::size_t>(options_.method)]},
                     {"calibration", options_.calibration},
                     {"policy", std::move(rules)}});
  }

  Result<void> begin() {
    if (options_.method == QuantMethod::kCalibrated && !options_.statistics)
      return fail(Errc::kInvalidArgument, "the method calibrated needs statistics of the inputs");
    fs::create_directories(dir_);
    if (is_pack(dir_))
      return fail(Errc::kInvalidArgument, dir_.string() + ": holds a finished pack already");
    const auto marker = dir_ / kUnfinished;
    if (fs::exists(marker)) {
      MOESAIC_TRY(const auto before, read_file(marker, kLargestText));
      if (before != settings())
        return fail(
            Errc::kInvalidArgument,
            dir_.string() + ": holds an unfinished pack of another source or other settings");
      return {};
    }
    if (!fs::is_empty(dir_)) return fail(Errc::kInvalidArgument, dir_.string() + ": is not empty");
    return write_file(marker, settings());
  }

  /// Writes one file unless an earlier run has finished it.
  template <class Write>
  Result<void> file(const std::string& name, Write&& write) {
    const auto path = dir_ / name;
    if (fs::exists(path)) {
      MOESAIC_TRY(const auto finished, PackFile::open(path));
      for (const auto& entry : finished->entries())
        if (entry.format) loader_.count(entry.bytes);
      loader_.report(name);
    } else {
      MOESAIC_TRY(auto out, PackFileWriter::create(path));
      MOESAIC_CHECK(write(out));
      MOESAIC_CHECK(out.finish());
    }
    return list(name);
  }

  /// A file that is finished goes into the manifest.
  Result<void> list(const std::string& name) {
    const auto path = dir_ / name;
    MOESAIC_TRY(const auto finished, PackFile::open(path));
    files_.push_back({{"name", name},
                      {"bytes", fs::file_size(path)},
                      {"index_sha256", finished->index_sha256()}});
    return {};
  }

  /// What a file has beside its layers.
  Result<void> beside_layers(const std::string& name, PackFileWriter& out) {
    if (name != "decoder.pack") return {};
    Giver head(out);
    MOESAIC_TRY(auto matrix, loader_.matrix({WeightKind::kEmbedding}));
    head.matrix("embedding", matrix, config_.vocab_size, config_.hidden, false);
    loader_.report("embedding");
    if (!config_.tie_word_embeddings) {
      MOESAIC_TRY(matrix, loader_.matrix({WeightKind::kLmHead}));
      head.matrix("lm_head", matrix, config_.vocab_size, config_.hidden, false);
    }
    MOESAIC_TRY(const auto norm, loader_.values({WeightKind::kFinalNorm}));
    head.values("final_norm", norm, norm.size());
    return head.result();
  }

  Result<void> decoder_layer(PackFileWriter& out, std::uint32_t layer) {
    MOESAIC_TRY(auto weights, loader_.decoder_layer(layer));
    Giver giver(out);
    pack_layout::visit_layer(config_, layer, weights, giver);
    loader_.report("decoder layer " + std::to_string(layer));
    return giver.result();
  }

  Result<void> routers(PackFileWriter& out, std::uint32_t layer) {
    Giver giver(out);
    if (!config_.layer_is_moe[layer]) return {};
    for (const auto modality : {Modality::kText, Modality::kVision}) {
      MOESAIC_TRY(auto gate, loader_.router(layer, modality));
      pack_layout::visit_router(config_, layer, modality, gate, giver);
    }
    return giver.result();
  }

  Result<void> vision(PackFileWriter& out) {
    MOESAIC_TRY(auto weights, loader_.vision());
    Giver giver(out);
    pack_layout::VisionVisit(config_, giver).all(weights);
    return giver.result();
  }

  /// The group's experts are encoded side by side, then written in order.
  Result<void> experts(PackFileWriter& out, std::uint32_t layer, Modality modality,
                       std::uint32_t first) {
    if (!config_.layer_is_moe[layer]) return {};
    const auto m = static_cast<std::size_t>(modality);
    const auto last = std::min(first + kPackGroup, config_.experts[m]);
    std::vector<Result<FfnWeights>> group(last - first);
    const auto encode = [&](std::size_t i) {
      group[i] = loader_.expert(layer, modality, first + static_cast<std::uint32_t>(i));
    };
    if (options_.method == QuantMethod::kCalibrated) {
      for (std::size_t i = 0; i < group.size(); ++i) encode(i);
    } else {
      pool_.parallel_for(group.size(), encode);
    }
    for (std::uint32_t e = first; e < last; ++e) {
      MOESAIC_TRY(auto weights, std::move(group[e - first]));
      Giver giver(out);
      pack_layout::visit_ffn(pack_layout::expert_name(layer, modality, e), config_.expert_width[m],
                             config_.hidden, weights, giver);
      MOESAIC_CHECK(giver.result());
    }
    loader_.report(std::string(pack_layout::modality_name(modality)) + " experts from " +
                   std::to_string(first) + ", layer " + std::to_string(layer));
    return {};
  }

  WeightFormat expert_format(std::uint32_t layer, Modality modality) const {
    const WeightId id{WeightKind::kExpertGate, layer, modality};
    return source_.packed_format(id).value_or(options_.policy.at(component_of(id), layer));
  }

  /// True if the source has quantised weights, which stay as they are.
  bool has_quantized() const {
    bool any = false;
    for_each_weight(config_, [&](const WeightId& id) { any = any || source_.packed_format(id); });
    return any;
  }

  /// Everything else that a model directory has, then the manifest, which makes it a pack.
  Result<void> finish() {
    MOESAIC_CHECK(write_file(dir_ / "config.json", config_json_));
    if (!options_.copy_from.empty()) MOESAIC_CHECK(copy_companions(options_.copy_from, dir_));
    auto manifest = json::parse(settings()).as_object();
    manifest["quantized"] = options_.policy.quantized() || has_quantized();
    json::array formats;
    for (std::uint32_t layer = 0; layer < config_.layers; ++layer)
      formats.push_back({format_name(expert_format(layer, Modality::kText)),
                         format_name(expert_format(layer, Modality::kVision))});
    manifest["expert_formats"] = std::move(formats);
    manifest["files"] = files_;
    MOESAIC_CHECK(write_file(dir_ / kPackManifest, json::serialize(manifest) + "\n"));
    fs::remove(dir_ / kLayersDone);
    fs::remove(dir_ / kUnfinished);
    return {};
  }

  const ModelConfig& config_;
  std::string_view config_json_;
  const PackOptions& options_;
  fs::path dir_;
  ThreadPool& pool_;
  const WeightSource& source_;
  PolicyEncoder encoder_;
  WeightLoader loader_;
  json::array files_;
};

/// On the disk when it returns.
Result<void> copy_to_disk(const fs::path& from, const fs::path& to) {
  auto beside = to;
  beside += ".tmp";
  fs::copy_file(from, beside, fs::copy_options::overwrite_existing);
  const int fd = ::open(beside.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail(Errc::kIo, beside.string() + ": " + std::strerror(errno));
  auto done = publish_file(fd, beside, to);
  ::close(fd);
  return done;
}

}  // namespace

Result<void> copy_companions(const fs::path& from, const fs::path& to) try {
  for (const auto& entry : fs::directory_iterator(from)) {
    const auto name = entry.path().filename();
    const auto kind = name.extension();
    if (!entry.is_regular_file() || kind == ".safetensors" || kind == ".pack" ||
        name == "config.json" || name == kPackManifest || name == kUnfinished ||
        name == "model.safetensors.index.json")
      continue;
    MOESAIC_CHECK(copy_to_disk(entry.path(), to / name));
  }
  return {};
} catch (const fs::filesystem_error& e) {
  return fail(Errc::kIo, e.what());
}

std::uint64_t matrix_bytes(const ModelConfig& config, const PackPolicy& policy) {
  const auto plan = plan_weights(config, policy);
  return plan.bytes() - plan.bytes_of("values");
}

Result<void> write_pack(const ModelConfig& config, std::string_view config_json,
                        const WeightSource& source, const PackOptions& options,
                        const std::filesystem::path& dir, ThreadPool& pool,
                        const LoadProgress& progress) try {
  return PackWriter(config, config_json, source, options, dir, pool, progress).run();
} catch (const fs::filesystem_error& e) {
  return fail(Errc::kIo, e.what());
} catch (const std::bad_alloc&) {
  return fail(Errc::kTooLarge, dir.string() + ": not enough memory for one matrix");
}

}  // namespace moesaic
