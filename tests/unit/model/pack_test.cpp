#include "common/model/pack.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <limits>
#include <set>

#include "common/base/read_file.hpp"
#include "common/model/weight_list.hpp"
#include "tests/support/temp_dir.hpp"

namespace moesaic {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kDemo = std::string(MOESAIC_SOURCE_DIR) + "/configs/models/ernie-vl-demo";

PackOptions options_of(WeightFormat format) {
  PackOptions options;
  options.policy = PackPolicy::uniform(format);
  options.source = "a test";
  options.copy_from = kDemo;
  return options;
}

class PackTest : public testing::Test {
 protected:
  Result<void> write(const PackOptions& options, const fs::path& dir) {
    const auto text = read_file(kDemo / "config.json", 1 << 20);
    return write_pack(config_, *text, *source_, options, dir, pool_, {});
  }
  std::shared_ptr<const Pack> open(const fs::path& dir) {
    auto pack = Pack::open(dir, config_);
    EXPECT_TRUE(pack) << pack.error().what;
    return pack ? *pack : nullptr;
  }
  /// The error of using every part of a pack.
  std::string error_of(const fs::path& dir) {
    const auto pack = Pack::open(dir, config_);
    if (!pack) return pack.error().what;
    if (const auto d = (*pack)->decoder(pool_, {}); !d) return d.error().what;
    if (const auto r = (*pack)->routers(); !r) return r.error().what;
    if (const auto v = (*pack)->vision(pool_, {}); !v) return v.error().what;
    const auto all = [](std::uint32_t, Modality, std::uint32_t) { return true; };
    if (const auto e = (*pack)->experts(all, pool_, {}); !e) return e.error().what;
    if (const auto v = (*pack)->verify(pool_, {}); !v) return v.error().what;
    return "";
  }
  static void flip_byte(const fs::path& file, std::streamoff at) {
    std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
    f.seekg(at);
    const char old = static_cast<char>(f.get());
    f.seekp(at);
    f.put(static_cast<char>(old ^ 0x10));
  }

  test::TempDir temp_;
  ModelConfig config_ = *load_model_config(kDemo);
  std::shared_ptr<const WeightSource> source_ = *open_checkpoint(kDemo, config_);
  ThreadPool pool_{2};
};

bool same(const PackedMatrix& a, const PackedMatrix& b) {
  return a.format == b.format && a.rows == b.rows && a.cols == b.cols && a.gate_up == b.gate_up &&
         std::memcmp(a.data, b.data, a.bytes()) == 0;
}

TEST_F(PackTest, ABf16PackHoldsTheCheckpointsMatrices) {
  ASSERT_TRUE(write(options_of(WeightFormat::kBf16), temp_.path() / "p"));
  const auto pack = open(temp_.path() / "p");
  EXPECT_EQ(pack->compute(), Compute::kBf16);
  const auto got = pack->decoder(pool_, {});
  const auto want = load_decoder(config_, *source_, Compute::kBf16);
  ASSERT_TRUE(got) << got.error().what;
  EXPECT_TRUE(same(got->embedding, want->embedding));
  EXPECT_EQ(got->final_norm, want->final_norm);
  for (std::size_t l = 0; l < config_.layers; ++l) {
    EXPECT_TRUE(same(got->layers[l].qkv, want->layers[l].qkv));
    EXPECT_TRUE(same(got->layers[l].attn_out, want->layers[l].attn_out));
    EXPECT_TRUE(same(got->layers[l].ffn.gate_up, want->layers[l].ffn.gate_up));
    EXPECT_EQ(got->layers[l].post_norm, want->layers[l].post_norm);
    EXPECT_EQ(got->layers[l].moe, want->layers[l].moe);
  }
  const auto vision = pack->vision(pool_, {});
  const auto want_vision = load_vision(config_, *source_, Compute::kBf16);
  ASSERT_TRUE(vision) << vision.error().what;
  EXPECT_TRUE(same(vision->blocks.back().fc2.weight, want_vision->blocks.back().fc2.weight));
  EXPECT_EQ(vision->temporal_norm.bias, want_vision->temporal_norm.bias);
  EXPECT_TRUE(same(vision->mlp.weight, want_vision->mlp.weight));
  const auto routers = pack->routers();
  const auto want_routers = load_routers(config_, *source_);
  EXPECT_EQ(routers->layers.back()[1].weight, want_routers->layers.back()[1].weight);
}

TEST_F(PackTest, AShardMapsTheExpertsItHoldsOnly) {
  ASSERT_TRUE(write(options_of(WeightFormat::kW4r), temp_.path() / "p"));
  const auto pack = open(temp_.path() / "p");
  EXPECT_EQ(pack->compute(), Compute::kInt);
  // The files of other groups may even be missing.
  fs::remove(temp_.path() / "p" / "experts-text-08.pack");
  fs::remove(temp_.path() / "p" / "experts-vision-00.pack");
  const auto held = [](std::uint32_t layer, Modality m, std::uint32_t e) {
    return m == Modality::kText && e < 8 && layer != 2;
  };
  const auto got = pack->experts(held, pool_, {});
  ASSERT_TRUE(got) << got.error().what;
  for (std::uint32_t l = 0; l < config_.layers; ++l)
    for (std::uint32_t e = 0; e < got->layers[l][0].size(); ++e)
      EXPECT_EQ(got->layers[l][0][e].gate_up.data != nullptr, held(l, Modality::kText, e));
  const auto all = [](std::uint32_t, Modality, std::uint32_t) { return true; };
  const auto missing = pack->experts(all, pool_, {});
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().what, HasSubstr("experts-text-08.pack"));
}

/// Names of the files with that ending which this process has mapped.
std::set<std::string> mapped_files(const std::string& ending) {
  std::set<std::string> names;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (line.ends_with(ending)) names.insert(line.substr(line.rfind('/') + 1));
  return names;
}

TEST_F(PackTest, EachOwnerMapsItsOwnFilesOnly) {
  ASSERT_TRUE(write(options_of(WeightFormat::kW4r), temp_.path() / "p"));
  using Names = std::set<std::string>;
  {
    const auto pack = open(temp_.path() / "p");
    EXPECT_EQ(mapped_files(".pack"), Names{}) << "opening maps nothing";
    const auto held = [](std::uint32_t, Modality m, std::uint32_t e) {
      return m == Modality::kText && e >= 8;
    };
    const auto experts = pack->experts(held, pool_, {});
    ASSERT_TRUE(experts);
    EXPECT_EQ(mapped_files(".pack"), Names{"experts-text-08.pack"});
    pack->wait_warm();
  }
  EXPECT_EQ(mapped_files(".pack"), Names{}) << "nothing is kept";
  {
    const auto pack = open(temp_.path() / "p");
    const auto decoder = pack->decoder(pool_, {});
    const auto routers = pack->routers();
    EXPECT_EQ(mapped_files(".pack"), (Names{"decoder.pack", "routers.pack"}));
  }
  const auto pack = open(temp_.path() / "p");
  const auto vision = pack->vision(pool_, {});
  EXPECT_EQ(mapped_files(".pack"), Names{"vision.pack"});
}

TEST_F(PackTest, AKilledRunGoesOnAndGivesTheSameBytes) {
  const auto options = options_of(WeightFormat::kW4r);
  ASSERT_TRUE(write(options, temp_.path() / "whole"));
  const auto cut = temp_.path() / "cut";
  const auto child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    // In the middle of a file of experts, without any clean-up.
    ThreadPool pool(1);
    const auto text = read_file(kDemo / "config.json", 1 << 20);
    const auto done = write_pack(config_, *text, *source_, options, cut, pool,
                                 [](std::uint64_t, const std::string& what) {
                                   if (what == "text experts from 8, layer 2")
                                     ::kill(::getpid(), SIGKILL);
                                 });
    ::_exit(done ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << status;
  EXPECT_TRUE(fs::exists(cut / "experts-text-00.pack"));
  EXPECT_FALSE(fs::exists(cut / "experts-text-08.pack")) << "half-written, but has its name";
  EXPECT_FALSE(is_pack(cut));
  const auto done = write(options, cut);
  ASSERT_TRUE(done) << done.error().what;
  std::set<fs::path> names;
  for (const auto& entry : fs::directory_iterator(temp_.path() / "whole")) {
    const auto name = entry.path().filename();
    names.insert(name);
    EXPECT_EQ(*read_file(entry.path(), 1 << 26), *read_file(cut / name, 1 << 26)) << name;
  }
  for (const auto& entry : fs::directory_iterator(cut))
    EXPECT_TRUE(names.contains(entry.path().filename())) << entry.path();
}

/// Files may have so many bytes, as a full disk would have it.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
  sighandler_t handler_;
};

TEST_F(PackTest, WhereNoRoomIsLeftNothingIsHalfWrittenAndItGoesOnLater) {
  const auto options = options_of(WeightFormat::kW4r);
  ASSERT_TRUE(write(options, temp_.path() / "whole"));
  const auto dir = temp_.path() / "p";
  const auto most = fs::file_size(temp_.path() / "whole" / "decoder.pack") / 2;
  {
    const FileSizeLimit limit(most);
    const auto full = write(options, dir);
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().code, Errc::kIo);
    EXPECT_THAT(full.error().what, HasSubstr("decoder.pack, at byte "));
    EXPECT_THAT(full.error().what, HasSubstr("File too large after "));
  }
  std::set<std::string> left;
  for (const auto& entry : fs::directory_iterator(dir)) left.insert(entry.path().filename());
  EXPECT_EQ(left, std::set<std::string>{"unfinished.json"});
  const auto done = write(options, dir);
  ASSERT_TRUE(done) << done.error().what;
  EXPECT_EQ(error_of(dir), "");
}

/// A model one of whose weights is `bad`.
class SpoiledSource final : public WeightSource {
 public:
  SpoiledSource(std::shared_ptr<const WeightSource> good, WeightId where, float bad)
      : good_(std::move(good)), where_(where), bad_(bad) {}
  Result<MatrixRef> get(const WeightId& id) const override {
    MOESAIC_TRY(const auto ref, good_->get(id));
    if (id.kind != where_.kind || id.layer != where_.layer || id.modality != where_.modality ||
        id.expert != where_.expert)
      return ref;
    const auto& view = ref.view;
    const auto values = std::make_shared<std::vector<float>>(view.rows * view.cols);
    for (std::size_t r = 0; r < view.rows; ++r)
      for (std::size_t c = 0; c < view.cols; ++c)
        (*values)[r * view.cols + c] = element_f32(view, r, c);
    // Row 1 and column 37 where there are so many.
    (*values)[view.rows > 1 ? view.cols + 37 : 5] = bad_;
    MatrixRef spoiled = ref;
    spoiled.view = {reinterpret_cast<const std::byte*>(values->data()),
                    DType::kF32,
                    view.rows,
                    view.cols,
                    static_cast<std::ptrdiff_t>(view.cols),
                    1};
    spoiled.owner = values;
    return spoiled;
  }

 private:
  std::shared_ptr<const WeightSource> good_;
  WeightId where_;
  float bad_;
};

TEST_F(PackTest, WeightsThatAreNotFiniteAreRefusedByNameInEveryFormat) {
  using enum WeightKind;
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  struct Case {
    WeightFormat format;
    WeightId where;
    float bad;
    const char* tensor;
    const char* place;
  };
  const Case cases[] = {
      {WeightFormat::kBf16, {kAttnOut, 2}, nan, "layers.2.attn_out", "row 1, column 37"},
      {WeightFormat::kBf16,
       {kExpertUp, 1, Modality::kVision, 3},
       -inf,
       "layers.1.vision.3.gate_up",
       "up, row 1, column 37"},
      {WeightFormat::kBf16,
       {kExpertGate, 1, Modality::kText, 9},
       inf,
       "layers.1.text.9.gate_up",
       "gate, row 1, column 37"},
      {WeightFormat::kW4r, {kExpertDown, 2, Modality::kText, 5}, inf, "expert 5", "row 1"},
      {WeightFormat::kW8r, {kSharedDown, 1}, nan, "shared, layer 1", "row 1"},
      {WeightFormat::kW4r,
       {kRouter, 1, Modality::kVision},
       nan,
       "layers.1.vision.gate.weight",
       "value"},
      {WeightFormat::kW4r, {kInputNorm, 3}, inf, "layers.3.input_norm", "value 5"},
      {WeightFormat::kW4r, {kVitFc1, 0}, nan, "blocks.0.fc1.weight", "row 1, column 37"},
  };
  const auto good = source_;
  for (const auto& c : cases) {
    source_ = std::make_shared<SpoiledSource>(good, c.where, c.bad);
    const auto dir = temp_.path() / c.tensor;
    const auto done = write(options_of(c.format), dir);
    ASSERT_FALSE(done) << c.tensor;
    EXPECT_EQ(done.error().code, Errc::kInvalidArgument) << done.error().what;
    EXPECT_THAT(done.error().what, HasSubstr(c.tensor));
    EXPECT_THAT(done.error().what, HasSubstr(c.place));
    EXPECT_FALSE(is_pack(dir));
    for (const auto& entry : fs::directory_iterator(dir))
      EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
  }
}

TEST_F(PackTest, WhatWasInterruptedGoesOnAndGivesTheSameBytes) {
  const auto options = options_of(WeightFormat::kW4r);
  ASSERT_TRUE(write(options, temp_.path() / "whole"));
  ASSERT_TRUE(write(options, temp_.path() / "cut"));
  // As a killed run leaves it: no manifest, the settings, some files, one half-written.
  const auto cut = temp_.path() / "cut";
  fs::remove(cut / "manifest.json");
  fs::remove(cut / "experts-text-08.pack");
  fs::remove(cut / "experts-vision-08.pack");
  std::ofstream(cut / "experts-text-08.pack.tmp") << "half";
  {
    // The settings are what an interrupted run of the same options writes first.
    test::TempDir other;
    auto bad = options;
    bad.copy_from = other.path() / "does not exist";
    EXPECT_FALSE(write(bad, other.path() / "p"));
    fs::copy_file(other.path() / "p" / "unfinished.json", cut / "unfinished.json");
  }
  const auto kept = fs::last_write_time(cut / "decoder.pack");
  auto changed = options;
  changed.method = QuantMethod::kAbsmax;
  const auto refused = write(changed, cut);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().what, HasSubstr("other settings"));
  const auto done = write(options, cut);
  ASSERT_TRUE(done) << done.error().what;
  EXPECT_EQ(fs::last_write_time(cut / "decoder.pack"), kept) << "was written again";
  for (const auto& entry : fs::directory_iterator(temp_.path() / "whole")) {
    const auto name = entry.path().filename();
    EXPECT_EQ(*read_file(entry.path(), 1 << 26), *read_file(cut / name, 1 << 26)) << name;
  }
  EXPECT_FALSE(fs::exists(cut / "unfinished.json"));
  EXPECT_FALSE(fs::exists(cut / "experts-text-08.pack.tmp"));
}

TEST_F(PackTest, CalibratedLayersThatWereFinishedAreNotDoneAgain) {
  auto options = options_of(WeightFormat::kW4r);
  options.method = QuantMethod::kCalibrated;
  std::set<std::uint32_t> asked;
  std::uint32_t fails_at = config_.layers;
  std::vector<std::uint32_t> done;
  options.statistics = [&](const WeightId& id) -> Result<std::shared_ptr<const InputStatistics>> {
    if (id.kind == WeightKind::kEmbedding) return std::shared_ptr<const InputStatistics>();
    asked.insert(id.layer);
    if (id.layer == fails_at && id.kind == WeightKind::kExpertDown)
      return fail(Errc::kIo, "killed");
    const auto cols = weight_shape(config_, id).cols;
    InputStatistics stats{cols, std::vector<float>(cols * cols), 1};
    for (std::size_t i = 0; i < cols; ++i)
      for (std::size_t j = 0; j < cols; ++j)
        stats.second_moment[i * cols + j] = i == j ? 1.0F : 0.5F;
    return std::make_shared<const InputStatistics>(std::move(stats));
  };
  options.layer_done = [&](std::uint32_t layer) { done.push_back(layer); };
  ASSERT_TRUE(write(options, temp_.path() / "whole"));
  EXPECT_EQ(done, (std::vector<std::uint32_t>{0, 1, 2, 3, 4, 5}));
  const auto whole = open(temp_.path() / "whole");
  EXPECT_TRUE(whole->verify(pool_, {}));

  const auto cut = temp_.path() / "cut";
  for (const std::uint32_t layer : {1U, 4U}) {
    fails_at = layer;
    const auto failed = write(options, cut);
    ASSERT_FALSE(failed);
    EXPECT_THAT(failed.error().what, HasSubstr("killed"));
    EXPECT_FALSE(is_pack(cut));
    EXPECT_FALSE(fs::exists(cut / "decoder.pack")) << "only whole files have their names";
  }
  // Part of the next layer was written, too.
  std::ofstream(cut / "decoder.pack.tmp", std::ios::app) << "half a matrix";
  asked.clear();
  fails_at = config_.layers;
  std::uint64_t first = 0, last = 0;
  const auto text = read_file(kDemo / "config.json", 1 << 20);
  const auto finished = write_pack(config_, *text, *source_, options, cut, pool_,
                                   [&](std::uint64_t bytes, const std::string&) {
                                     if (first == 0) first = bytes;
                                     last = bytes;
                                   });
  ASSERT_TRUE(finished) << finished.error().what;
  EXPECT_EQ(asked, (std::set<std::uint32_t>{4, 5}));
  EXPECT_GT(first, 0U);
  EXPECT_EQ(last, matrix_bytes(config_, options.policy));
  std::size_t files = 0;
  for (const auto& entry : fs::directory_iterator(temp_.path() / "whole")) {
    if (!entry.is_regular_file()) continue;
    const auto name = entry.path().filename();
    EXPECT_EQ(*read_file(entry.path(), 1 << 26), *read_file(cut / name, 1 << 26)) << name;
    ++files;
  }
  EXPECT_EQ(static_cast<std::size_t>(
                std::distance(fs::directory_iterator(cut), fs::directory_iterator())),
            files)
      << "nothing is left over";
}

TEST_F(PackTest, AnUnfinishedCalibratedPackThatIsDamagedIsRefused) {
  auto options = options_of(WeightFormat::kW8r);
  options.method = QuantMethod::kCalibrated;
  options.statistics = [&](const WeightId& id) -> Result<std::shared_ptr<const InputStatistics>> {
    if (id.layer == 2) return fail(Errc::kIo, "killed");
    return std::shared_ptr<const InputStatistics>();
  };
  const auto spoiled = [&](auto&& spoil) {
    const auto dir = temp_.path() / "p";
    fs::remove_all(dir);
    EXPECT_FALSE(write(options, dir));
    spoil(dir);
    const auto again = write(options, dir);
    EXPECT_FALSE(again);
    return again.error().what;
  };
  EXPECT_THAT(spoiled([](const fs::path&) {}), HasSubstr("killed"));
  EXPECT_THAT(spoiled([](const fs::path& d) { fs::remove(d / "routers.pack.tmp"); }),
              HasSubstr("routers.pack.tmp: No such file"));
  EXPECT_THAT(
      spoiled([](const fs::path& d) { fs::resize_file(d / "experts-text-08.pack.tmp", 5000); }),
      HasSubstr("experts-text-08.pack.tmp: 5000 bytes, "));
  for (const char* text : {"", "{", "[]", "{\"layers\":2}",
                           "{\"layers\":7,\"matrix_bytes\":1,\"files\":[1,2,3,4,5,6]}",
                           "{\"layers\":2,\"matrix_bytes\":1,\"files\":[1,2,3,4,5,6]}"})
    EXPECT_THAT(spoiled([&](const fs::path& d) { std::ofstream(d / "layers_done.json") << text; }),
                HasSubstr("layers_done.json: damaged"))
        << text;
  EXPECT_THAT(
      spoiled([](const fs::path& d) {
        std::ofstream(d / "layers_done.json")
            << "{\"layers\":2,\"matrix_bytes\":1,\"files\":[\"{}\",\"\",\"\",\"\",\"\",\"\"]}";
      }),
      HasSubstr("decoder.pack.tmp: its state"));
}

TEST_F(PackTest, BadPacksAreRefusedByName) {
  const auto good = temp_.path() / "good";
  ASSERT_TRUE(write(options_of(WeightFormat::kW8r), good));
  EXPECT_EQ(error_of(good), "");
  const auto spoiled = [&](auto&& spoil) {
    const auto dir = temp_.path() / "bad";
    fs::remove_all(dir);
    fs::copy(good, dir);
    spoil(dir);
    return error_of(dir);
  };
  const auto size = fs::file_size(good / "experts-text-00.pack");
  EXPECT_THAT(spoiled([](const fs::path& d) { flip_byte(d / "decoder.pack", 5000); }),
              HasSubstr("decoder.pack: tensor \"embedding\": damaged"));
  EXPECT_THAT(
      spoiled([&](const fs::path& d) { fs::resize_file(d / "experts-text-00.pack", size - 100); }),
      HasSubstr("experts-text-00.pack: truncated or damaged"));
  EXPECT_THAT(spoiled([&](const fs::path& d) {
                flip_byte(d / "vision.pack",
                          static_cast<std::streamoff>(fs::file_size(d / "vision.pack")) - 40);
              }),
              HasSubstr("vision.pack: index: damaged"));
  EXPECT_THAT(spoiled([](const fs::path& d) { flip_byte(d / "routers.pack", 8); }),
              HasSubstr("routers.pack: pack version 17, this program reads 1"));
  EXPECT_THAT(spoiled([](const fs::path& d) { flip_byte(d / "routers.pack", 0); }),
              HasSubstr("routers.pack: not a pack file"));
  EXPECT_THAT(spoiled([](const fs::path& d) {
                fs::copy_file(d / "experts-text-08.pack", d / "experts-text-00.pack",
                              fs::copy_options::overwrite_existing);
              }),
              HasSubstr("experts-text-00.pack: not the file that manifest.json names"));
  EXPECT_THAT(spoiled([](const fs::path& d) { std::ofstream(d / "config.json") << "{}"; }),
              HasSubstr("a pack of another model"));
  EXPECT_THAT(spoiled([](const fs::path& d) { std::ofstream(d / "manifest.json") << "{"; }),
              HasSubstr("manifest.json"));
}

TEST_F(PackTest, NothingIsWrittenOverSomethingElse) {
  std::ofstream(temp_.path() / "mine.txt") << "text";
  const auto over = write(options_of(WeightFormat::kW4r), temp_.path());
  ASSERT_FALSE(over);
  EXPECT_THAT(over.error().what, HasSubstr("is not empty"));
  ASSERT_TRUE(write(options_of(WeightFormat::kW4r), temp_.path() / "p"));
  const auto twice = write(options_of(WeightFormat::kW4r), temp_.path() / "p");
  ASSERT_FALSE(twice);
  EXPECT_THAT(twice.error().what, HasSubstr("finished pack already"));
}

TEST_F(PackTest, AFileThatIsCutWhileItIsOpenIsAnErrorNotACrash) {
  ASSERT_TRUE(write(options_of(WeightFormat::kBf16), temp_.path() / "p"));
  const auto path = temp_.path() / "p" / "experts-text-00.pack";
  const auto file = PackFile::open(path);
  ASSERT_TRUE(file);
  std::vector<const PackEntry*> entries;
  for (const auto& entry : (*file)->entries()) entries.push_back(&entry);
  ASSERT_TRUE((*file)->populate(entries, pool_, nullptr, {}));
  fs::resize_file(path, fs::file_size(path) / 2);
  const auto cut = (*file)->populate(entries, pool_, nullptr, {});
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code, Errc::kIo);
  EXPECT_THAT(cut.error().what, HasSubstr("experts-text-00.pack: cannot be read from byte "));
}

TEST(PackFileTest, AFullDiskLeavesNothingUnderTheFilesName) {
  // /dev/full accepts an open and refuses every write.
  test::TempDir temp;
  const auto path = temp.path() / "full.pack";
  fs::create_symlink("/dev/full", path.string() + ".tmp");
  auto writer = PackFileWriter::create(path);
  if (writer) {
    const std::vector<float> values(5000, 1.0F);
    const auto added = writer->add("x", values);
    ASSERT_FALSE(added);
    EXPECT_THAT(added.error().what, HasSubstr("No space left on device"));
  } else {
    EXPECT_THAT(writer.error().what, HasSubstr("full.pack"));
  }
  EXPECT_FALSE(fs::exists(path));
}

TEST(PackPolicyTest, LaterRulesAndLayersWin) {
  const auto policy = parse_policy(
      "default: w4\nattention: w8\ntext_experts: [{format: ccq2, layers: 1-20}, {format: w8, "
      "layers: "
      "\"3\"}]\n",
      28, "p.yaml");
  ASSERT_TRUE(policy) << policy.error().what;
  EXPECT_EQ(policy->at(Component::kAttention, 5), WeightFormat::kW8r);
  EXPECT_EQ(policy->at(Component::kShared, 5), WeightFormat::kW4r);
  EXPECT_EQ(policy->at(Component::kTextExperts, 2), WeightFormat::kCcq2);
  EXPECT_EQ(policy->at(Component::kTextExperts, 3), WeightFormat::kW8r);
  EXPECT_EQ(policy->at(Component::kTextExperts, 21), WeightFormat::kW4r);
  EXPECT_EQ(policy->at(Component::kVision, 0), WeightFormat::kBf16);
}

TEST(PackPolicyTest, EveryFormatHasANameAndTheExamplesAreRead) {
  const auto policy = parse_policy("default: ccq2.75\ndense: ccq2.5\nshared: ccq2\n", 28, "p.yaml");
  ASSERT_TRUE(policy) << policy.error().what;
  EXPECT_EQ(policy->at(Component::kTextExperts, 5), WeightFormat::kCcq275);
  EXPECT_EQ(policy->at(Component::kDense, 0), WeightFormat::kCcq25);
  EXPECT_EQ(policy->at(Component::kShared, 27), WeightFormat::kCcq2);
  for (const auto name : kPackFormatNames) EXPECT_EQ(format_name(*parse_format(name)), name);
  std::size_t examples = 0;
  for (const auto& file :
       fs::directory_iterator(std::string(MOESAIC_SOURCE_DIR) + "/configs/quantization")) {
    if (file.path().extension() != ".yaml") continue;
    const auto text = read_file(file.path(), 1 << 16);
    ASSERT_TRUE(text);
    const auto example = parse_policy(*text, 28, file.path().string());
    EXPECT_TRUE(example) << example.error().what;
    ++examples;
  }
  EXPECT_GE(examples, 4U);
}

TEST(PackPolicyTest, BadPoliciesAreRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {"atention: w4", "no component \"atention\""},
      {"attention: w3", "attention: format \"w3\"; there are: bf16, w8, w4, ccq2.75, ccq2.5, ccq2"},
      {"shared: {format: w4, layers: 20-28}", "shared: layers \"20-28\"; the model has 0-27"},
      {"shared: {format: w4, layer: 3}", "shared: unknown key \"layer\""},
      {"shared: {layers: 1-2}", "shared: no format"},
      {"vision: w4", "vision: format \"w4\"; the tower takes bf16 or w8"},
      {"vision: {format: w8, layers: 1-2}", "vision: layers are the decoder's"},
      {"- w4", "no map"},
      {"a: [", "p.yaml"},
  };
  for (const auto& [yaml, want] : cases) {
    const auto policy = parse_policy(yaml, 28, "p.yaml");
    ASSERT_FALSE(policy) << yaml;
    EXPECT_THAT(policy.error().what, HasSubstr(want));
    EXPECT_EQ(policy.error().code, Errc::kInvalidArgument);
  }
}

}  // namespace
}  // namespace moesaic
