#include "tests/support/published_checkpoint.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "common/kernels/integer_weight.hpp"
#include "common/model/checkpoint.hpp"
#include "common/model/inspect.hpp"
#include "common/model/pack.hpp"
#include "common/model/weight_list.hpp"
#include "common/tensor/bf16.hpp"
#include "common/tensor/safetensors.hpp"
#include "tests/support/json.hpp"
#include "tests/support/temp_dir.hpp"
#include "tests/unit/model/checkpoint_rewrites.hpp"

namespace moesaic {
namespace {

using test::PublishedSpec;
using test::Tensors;
using testing::HasSubstr;

std::string tiny_config_text() { return test::file_bytes(test::tiny_original() / "config.json"); }

ModelConfig published_config_of(const PublishedSpec& spec, bool other_keys = false) {
  return *parse_model_config(test::published_config(tiny_config_text(), spec, other_keys), "c");
}

/// The tiny model as it would be published.
Tensors published(const PublishedSpec& spec) {
  const auto config = test::tiny_config(test::tiny_original());
  return test::published_tensors(config, **open_checkpoint(test::tiny_original(), config), spec);
}

/// Section 3.2 and 9.1 of quantization.md, written down once more.
class Formula {
 public:
  Formula(const Tensors& tensors, const std::string& base)
      : four_(base.find(".experts.") != std::string::npos) {
    const auto find = [&](const char* name) {
      const auto at = tensors.find(base + name);
      return at == tensors.end() ? nullptr : &at->second;
    };
    weight_ = find(".quant_weight");
    scale_ = find(".weight_scale");
    super_ = find(".super_scales");
    code_scale_ = find(".code_scale");
    code_zp_ = find(".code_zp");
  }
  /// Weight (k, n).
  float at(std::size_t k, std::size_t n) const {
    if (code_scale_ == nullptr) {
      int integer = four_ ? byte(*weight_, k / 2, n) >> (k % 2 * 4) & 15 : byte(*weight_, k, n);
      if (integer >= (four_ ? 8 : 128)) integer -= four_ ? 16 : 256;
      return static_cast<float>(integer) * value(*scale_, n);
    }
    const float product = static_cast<float>(byte(*weight_, k / 4, n)) * value(*code_scale_, n);
    const float sum = product + value(*code_zp_, n);
    const auto code = static_cast<std::int32_t>(std::floor(sum + 0.5F));
    constexpr int kShifts[] = {9, 6, 3, 0};
    const int level = code >> kShifts[k % 4] & 63;
    const int both = byte(*scale_, k / 128, n);
    const int local = k / 64 % 2 == 0 ? both >> 4 : both & 15;
    const float super = super_ != nullptr ? value(*super_, n) : 1.0F;
    return static_cast<float>(level - 32) * (static_cast<float>(local) * super);
  }

 private:
  int byte(const Tensor& t, std::size_t row, std::size_t n) const {
    return std::to_integer<int>(
        t.bytes.data()[row * static_cast<std::size_t>(weight_->shape[1]) + n]);
  }
  static float value(const Tensor& t, std::size_t n) {
    return t.dtype == DType::kF32 ? t.as<float>()[n] : bf16_to_f32(t.as<Bf16>()[n]);
  }

  bool four_;
  const Tensor *weight_ = nullptr, *scale_ = nullptr, *super_ = nullptr, *code_scale_ = nullptr,
               *code_zp_ = nullptr;
};

class PublishedCheckpointTest : public testing::Test {
 protected:
  void write(const Tensors& tensors) const {
    ASSERT_TRUE(write_safetensors(dir_ / "model.safetensors", tensors));
  }
  /// Compares every weight of every quantised linear with the formulas; counts linears.
  std::size_t check_all(const ModelConfig& config, const Checkpoint& checkpoint,
                        const Tensors& tensors) {
    std::size_t linears = 0;
    for_each_weight(config, [&](const WeightId& id) {
      const auto format = checkpoint.packed_format(id);
      const bool linear = component_of(id) != Component::kVision &&
                          component_of(id) != Component::kEmbedding &&
                          weight_shape(config, id).rows > 1 && !is_router(id.kind);
      ASSERT_EQ(format.has_value(), linear);
      if (!format) return;
      ++linears;
      const auto part = locate(config, checkpoint.layout(), id);
      const auto base = part.name.substr(0, part.name.size() - std::strlen(".weight"));
      const Formula want(tensors, base);
      const auto got = checkpoint.get(id);
      ASSERT_TRUE(got) << got.error().what;
      for (std::size_t r = 0; r < got->view.rows; ++r)
        for (std::size_t c = 0; c < got->view.cols; ++c)
          ASSERT_EQ(element_f32(got->view, r, c), round_to_bf16(want.at(c, part.offset + r)))
              << base << ' ' << r << ' ' << c;
      using enum WeightKind;
      if (id.kind == kKey || id.kind == kValue || id.kind == kDenseUp || id.kind == kSharedUp ||
          id.kind == kExpertUp)
        return;  // in the panels of another
      const auto packed = checkpoint.packed(id);
      ASSERT_TRUE(packed) << packed.error().what;
      EXPECT_EQ(packed->format, *format);
      for (std::size_t p = 0; p < packed->panels(); ++p)
        for (std::size_t row = 0; row < 32; ++row) {
          const std::size_t in_half = p * 16 + row % 16;
          const std::size_t n = !packed->gate_up          ? p * 32 + row
                                : in_half >= packed->rows ? packed->rows * 2
                                                          : row / 16 * packed->rows + in_half;
          if (n >= packed->rows * (packed->gate_up ? 2 : 1)) continue;
          for (std::size_t k = 0; k < packed->cols; ++k)
            ASSERT_EQ(
                static_cast<float>(integer_weight(*packed, p, row, k)) * row_scale(*packed, p, row),
                want.at(k, n))
                << base << ' ' << n << ' ' << k;
        }
    });
    return linears;
  }
  test::TempDir dir_;
};

TEST_F(PublishedCheckpointTest, EveryWeightIsThatOfTheFormulasInEverySpelling) {
  const PublishedSpec plain;
  PublishedSpec odd;
  odd.leading_one = odd.signed_bytes = true;
  odd.last_w4_layer = 2;
  PublishedSpec foreign;
  foreign.super_scales = foreign.padded_k = false;
  foreign.code_fraction = 0.498F;
  for (const auto& spec : {plain, odd, foreign}) {
    const auto config = published_config_of(spec, spec.leading_one);
    const auto tensors = published(spec);
    write(tensors);
    const auto opened = Checkpoint::open(dir_.path(), config);
    ASSERT_TRUE(opened) << opened.error().what;
    EXPECT_EQ((*opened)->layout().format, TensorFormat::kPaddle);
    // Of each layer q, k, v and output, a feed-forward of three; experts of three layers.
    EXPECT_EQ(check_all(config, **opened, tensors), 4U * (4 + 3) + 3 * 16 * 3);
    using enum WeightKind;
    const auto format = [&](WeightKind kind, std::uint32_t layer) {
      return (*opened)->packed_format({kind, layer, Modality::kVision, 3});
    };
    EXPECT_EQ(format(kQuery, 0), WeightFormat::kW8r);
    EXPECT_EQ(format(kExpertGate, 1), WeightFormat::kW4r);
    EXPECT_EQ(format(kExpertDown, spec.last_w4_layer), WeightFormat::kW4r);
    EXPECT_EQ(format(kExpertDown, spec.last_w4_layer + 1), WeightFormat::kCcq2);
  }
}

TEST_F(PublishedCheckpointTest, AModelTokensAreAsGoodAsItsFormats) {
  // Round to nearest at 8 bits is within half a step.
  const PublishedSpec spec;
  const auto config = published_config_of(spec);
  write(published(spec));
  const auto opened = Checkpoint::open(dir_.path(), config);
  ASSERT_TRUE(opened);
  const auto original = open_checkpoint(test::tiny_original(), config);
  ASSERT_TRUE(original);
  const WeightId id{WeightKind::kQuery, 1};
  const auto got = (*opened)->get(id), want = (*original)->get(id);
  ASSERT_TRUE(got && want);
  for (std::size_t r = 0; r < got->view.rows; ++r) {
    float most = 0;
    for (std::size_t c = 0; c < got->view.cols; ++c)
      most = std::max(most, std::fabs(element_f32(want->view, r, c)));
    for (std::size_t c = 0; c < got->view.cols; ++c)
      EXPECT_NEAR(element_f32(got->view, r, c), element_f32(want->view, r, c), most * 0.009);
  }
}

TEST_F(PublishedCheckpointTest, LinearsMayBeLeftAsFloats) {
  const PublishedSpec spec;
  const auto config = published_config_of(spec);
  auto tensors = published(spec);
  const std::string base = "ernie.layers.1.self_attn.o_proj";
  tensors.erase(base + ".quant_weight");
  tensors.erase(base + ".weight_scale");
  tensors.emplace(base + ".weight", test::zeros(DType::kBf16, {128, 128}));
  write(tensors);
  const auto opened = Checkpoint::open(dir_.path(), config);
  ASSERT_TRUE(opened) << opened.error().what;
  EXPECT_FALSE((*opened)->packed_format({WeightKind::kAttnOut, 1}));
  EXPECT_TRUE((*opened)->packed_format({WeightKind::kAttnOut, 2}));
}

TEST_F(PublishedCheckpointTest, SuperScalesHaveTwoNames) {
  const auto config = published_config_of({});
  auto tensors = published({});
  const std::string base = "ernie.layers.2.mlp.experts.1.down_proj";
  auto node = tensors.extract(base + ".super_scales");
  node.key() = base + ".super_scale";
  const float super = bf16_to_f32(node.mapped().as<Bf16>()[5]);
  tensors.insert(std::move(node));
  write(tensors);
  const auto opened = Checkpoint::open(dir_.path(), config);
  ASSERT_TRUE(opened) << opened.error().what;
  const auto packed = (*opened)->packed({WeightKind::kExpertDown, 2, Modality::kText, 1});
  ASSERT_TRUE(packed);
  EXPECT_EQ(row_scale(*packed, 0, 5), super);
}

TEST_F(PublishedCheckpointTest, InspectCountsWhatIsStored) {
  const PublishedSpec spec;
  const auto config = published_config_of(spec);
  const auto tensors = published(spec);
  write(tensors);
  const auto opened = Checkpoint::open(dir_.path(), config);
  ASSERT_TRUE(opened);
  const auto report = inspect(config, opened->get());
  std::uint64_t bytes = 0;
  for (const auto& [name, tensor] : tensors) bytes += tensor.elements() * dtype_bytes(tensor.dtype);
  EXPECT_EQ(report.total.tensors, tensors.size());
  EXPECT_NEAR(static_cast<double>(report.total.bytes), static_cast<double>(bytes), 64.0);
  EXPECT_THAT(to_text(report), HasSubstr("WINT8, experts WINT4 up to layer 1, then WINT2"));
}

TEST_F(PublishedCheckpointTest, APackOfItHasTheSamePanels) {
  PublishedSpec spec;
  spec.code_fraction = 0.498F;
  const auto text = test::published_config(tiny_config_text(), spec);
  const auto config = published_config_of(spec);
  write(published(spec));
  const auto source = open_checkpoint(dir_.path(), config);
  ASSERT_TRUE(source);
  ThreadPool pool(2);
  PackOptions options;
  options.policy = PackPolicy::uniform(WeightFormat::kBf16);
  options.method = QuantMethod::kAbsmax;
  const auto done = write_pack(config, text, **source, options, dir_ / "pack", pool, {});
  ASSERT_TRUE(done) << done.error().what;
  const auto pack = Pack::open(dir_ / "pack", config);
  ASSERT_TRUE(pack) << pack.error().what;
  EXPECT_EQ((*pack)->compute(), Compute::kInt);
  EXPECT_EQ((*pack)->expert_format(1, Modality::kText), WeightFormat::kW4r);
  EXPECT_EQ((*pack)->expert_format(3, Modality::kVision), WeightFormat::kCcq2);
  const auto all = [](std::uint32_t, Modality, std::uint32_t) { return true; };
  const auto got = (*pack)->experts(all, pool, {});
  const auto want = load_experts(config, **source, Compute::kInt, all);
  ASSERT_TRUE(got && want);
  const auto same = [](const PackedMatrix& a, const PackedMatrix& b) {
    EXPECT_EQ(a.format, b.format);
    ASSERT_EQ(a.bytes(), b.bytes());
    EXPECT_EQ(std::memcmp(a.data, b.data, a.bytes()), 0);
  };
  for (std::uint32_t layer = 1; layer < config.layers; ++layer)
    for (std::size_t m = 0; m < kModalities; ++m)
      for (std::size_t e = 0; e < config.experts[m]; ++e) {
        same(got->layers[layer][m][e].gate_up, want->layers[layer][m][e].gate_up);
        same(got->layers[layer][m][e].down, want->layers[layer][m][e].down);
      }
  const auto decoder = (*pack)->decoder(pool, {});
  const auto loaded = load_decoder(config, **source, Compute::kInt);
  ASSERT_TRUE(decoder && loaded);
  EXPECT_EQ(decoder->embedding.format, WeightFormat::kBf16);
  for (std::uint32_t layer = 0; layer < config.layers; ++layer) {
    EXPECT_EQ(decoder->layers[layer].qkv.format, WeightFormat::kW8r);
    same(decoder->layers[layer].qkv, loaded->layers[layer].qkv);
    same(decoder->layers[layer].ffn.gate_up, loaded->layers[layer].ffn.gate_up);
  }
  const auto routers = load_routers(config, **source, Compute::kInt);
  ASSERT_TRUE(routers);
  EXPECT_EQ(routers->expert_format[1][0], WeightFormat::kW4r);
  EXPECT_EQ(routers->expert_format[2][1], WeightFormat::kCcq2);
  EXPECT_TRUE(load_routers(config, **source)->expert_format.empty());
}

struct Broken {
  std::string label;
  std::function<void(Tensors&)> change;
  std::vector<std::string> parts;
  Errc code;
  bool when_read = false;  ///< values are looked at when the weight is
};

const std::string kEight = "ernie.layers.0.self_attn.qkv_proj";
const std::string kFour = "ernie.layers.1.mlp.experts.2.up_gate_proj";
const std::string kTwo = "ernie.layers.2.mlp.experts.9.down_proj";  // a vision expert, K 32

void replace(Tensors& tensors, const std::string& name, DType dtype,
             std::vector<std::int64_t> shape) {
  tensors.erase(name);
  tensors.emplace(name, test::zeros(dtype, std::move(shape)));
}

std::vector<Broken> broken_checkpoints() {
  using enum DType;
  const auto swap = [](const std::string& name, DType dtype, std::vector<std::int64_t> shape) {
    return [=](Tensors& t) { replace(t, name, dtype, shape); };
  };
  const auto nan = std::numeric_limits<float>::quiet_NaN();
  return {
      {"NoScale",
       [](Tensors& t) { t.erase(kEight + ".weight_scale"); },
       {"\"" + kEight + ".weight_scale\": nothing found, expected [256]"},
       Errc::kNotFound},
      {"NoCodeScale",
       [](Tensors& t) { t.erase(kTwo + ".code_scale"); },
       {"\"" + kTwo + ".code_scale\": nothing found, expected [128] of F32"},
       Errc::kNotFound},
      {"NoCodeZero",
       [](Tensors& t) { t.erase(kTwo + ".code_zp"); },
       {"\"" + kTwo + ".code_zp\": nothing found"},
       Errc::kNotFound},
      {"OneRowMore",
       swap(kEight + ".quant_weight", kU8, {129, 256}),
       {"\"" + kEight + ".quant_weight\": U8 [129, 256] found, expected [128, 256] of U8 or I8"},
       Errc::kShapeMismatch},
      {"OneColumnLess",
       swap(kFour + ".quant_weight", kU8, {64, 127}),
       {"\"" + kFour + ".quant_weight\": U8 [64, 127] found, expected [64, 128]"},
       Errc::kShapeMismatch},
      {"OneWordLess",
       swap(kTwo + ".quant_weight", kU8, {15, 128}),
       {"\"" + kTwo + ".quant_weight\": U8 [15, 128] found, expected [16, 128]"},
       Errc::kShapeMismatch},
      {"KNoMultipleOf64",
       swap(kTwo + ".quant_weight", kU8, {24, 128}),
       {"\"" + kTwo + ".quant_weight\": U8 [24, 128] found, expected [16, 128]"},
       Errc::kShapeMismatch},
      {"Turned",
       swap(kEight + ".quant_weight", kI8, {256, 128}),
       {"I8 [256, 128] found, expected [128, 256]", "only [in, out] is a file format"},
       Errc::kUnsupported},
      {"Floats",
       swap(kEight + ".quant_weight", kBf16, {128, 256}),
       {"BF16 [128, 256] found, expected [128, 256] of U8 or I8"},
       Errc::kUnsupported},
      {"ScalesOfBytes",
       swap(kEight + ".weight_scale", kU8, {256}),
       {"\"" + kEight + ".weight_scale\": U8 [256] found, expected [256] of BF16, F16 or F32"},
       Errc::kUnsupported},
      {"LocalScalesOfFloats",
       swap(kTwo + ".weight_scale", kBf16, {1, 128}),
       {"\"" + kTwo + ".weight_scale\": BF16 [1, 128] found, expected [1, 128] of U8 or I8"},
       Errc::kUnsupported},
      {"ScalesOfAnotherLength",
       swap(kFour + ".weight_scale", kBf16, {64}),
       {"\"" + kFour + ".weight_scale\": BF16 [64] found, expected [128]"},
       Errc::kShapeMismatch},
      {"SuperScalesOfF32",
       swap(kTwo + ".super_scales", kF32, {128}),
       {"\"" + kTwo + ".super_scales\": F32 [128] found, expected [128] of BF16"},
       Errc::kUnsupported},
      {"CodeOfBf16",
       swap(kTwo + ".code_zp", kBf16, {128}),
       {"\"" + kTwo + ".code_zp\": BF16 [128] found, expected [128] of F32"},
       Errc::kUnsupported},
      {"TwoLeadingOnes",
       swap(kTwo + ".code_zp", kF32, {1, 1, 128}),
       {"F32 [1, 1, 128] found, expected [128]"},
       Errc::kShapeMismatch},
      {"Stranger",
       swap(kTwo + ".act_scale", kF32, {1}),
       {"\"" + kTwo + ".act_scale\": F32 [1] found, expected only"},
       Errc::kCorrupt},
      {"BothForms",
       swap(kTwo + ".weight", kBf16, {32, 128}),
       {"\"" + kTwo + ".weight\": BF16 [32, 128] found, expected only"},
       Errc::kCorrupt},
      {"RouterQuantised",
       swap("ernie.layers.1.mlp.gate.quant_weight", kU8, {128, 8}),
       {"gate.quant_weight\": U8 [128, 8] found, expected only"},
       Errc::kCorrupt},
      {"NanSuperScale",
       [](Tensors& t) { t.at(kTwo + ".super_scales").as<Bf16>()[17] = 0x7fc0; },
       {"\"" + kTwo + "\": super_scales: column 17 is nan"},
       Errc::kCorrupt,
       true},
      {"NanCodeScale",
       [=](Tensors& t) { t.at(kTwo + ".code_scale").as<float>()[5] = nan; },
       {"\"" + kTwo + "\": code_scale, code_zp: column 5: nan"},
       Errc::kCorrupt,
       true},
      {"NegativeScale",
       [](Tensors& t) { t.at(kFour + ".weight_scale").as<Bf16>()[3] = 0xbf80; },
       {"\"" + kFour + "\": weight_scale: column 3 is -1"},
       Errc::kCorrupt,
       true},
      {"Biased",
       [](Tensors& t) { t.at(kEight + ".quant_weight").as<std::uint8_t>()[260] = 0x80; },
       {"\"" + kEight + "\": quant_weight: row 1, column 4 is -128", "biased or permuted"},
       Errc::kUnsupported,
       true},
  };
}

class BrokenPublishedTest : public testing::TestWithParam<Broken> {};

TEST_P(BrokenPublishedTest, NamesTensorFoundAndExpected) {
  const auto& broken = GetParam();
  const test::TempDir dir;
  static const test::TempDir good;
  if (!std::filesystem::exists(good / "model.safetensors")) {
    ASSERT_TRUE(write_safetensors(good / "model.safetensors", published({})));
  }
  auto tensors = *read_safetensors(good / "model.safetensors");
  broken.change(tensors);
  ASSERT_TRUE(write_safetensors(dir / "model.safetensors", tensors));
  const auto config = published_config_of({});
  const auto opened = Checkpoint::open(dir.path(), config);
  Error error;
  if (!opened) {
    error = opened.error();
    EXPECT_FALSE(broken.when_read);
  } else {
    using enum WeightKind;
    for (const WeightId id : {WeightId{kQuery, 0}, WeightId{kExpertGate, 1, Modality::kText, 2},
                              WeightId{kExpertDown, 2, Modality::kVision, 1}}) {
      const auto packed = (*opened)->packed(id);
      const auto floats = (*opened)->get(id);
      EXPECT_EQ(packed.has_value(), floats.has_value());
      if (!packed) error = packed.error();
      EXPECT_EQ(floats ? std::string() : floats.error().what, packed ? "" : error.what);
    }
  }
  EXPECT_EQ(error.code, broken.code) << error.what;
  for (const auto& part : broken.parts) EXPECT_THAT(error.what, HasSubstr(part));
  EXPECT_THAT(error.what, HasSubstr(dir.path().string()));
}

INSTANTIATE_TEST_SUITE_P(Every, BrokenPublishedTest, testing::ValuesIn(broken_checkpoints()),
                         [](const auto& at) { return at.param.label; });

TEST_F(PublishedCheckpointTest, WithoutAConfigurationTheFormatIsUnknown) {
  write(published({}));
  const auto opened = Checkpoint::open(dir_.path(), test::tiny_config(test::tiny_original()));
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::kUnsupported);
  EXPECT_THAT(opened.error().what, HasSubstr("qkv_proj.quant_weight\": found, but config.json"));
}

}  // namespace
}  // namespace moesaic
