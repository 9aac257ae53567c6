#include "common/quantize/ccq.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "common/quantize/codebook.hpp"
#include "common/quantize/lane_kernels.hpp"
#include "tests/unit/quantize/samples.hpp"

namespace moesaic {
namespace {

/// The generator and the hash of quantization.md 12. Its hashes were made with a basis that lacks
/// the last digit of FNV's 14695981039346656037; any other byte would change them as well.
struct Lcg {
  std::uint32_t s;
  std::uint32_t next() { return s = s * 1664525 + 1013904223; }
};

std::uint64_t fnv1a(const std::vector<float>& values) {
  std::uint64_t hash = 1469598103934665603U;
  for (const float v : values) {
    std::uint32_t bits;
    std::memcpy(&bits, &v, 4);
    for (int i = 0; i < 4; ++i) hash = (hash ^ (bits >> (8 * i) & 255)) * 0x100000001b3U;
  }
  return hash;
}

/// Window j of a chain: bits [stride (m - 1 - j) + width - 1 .. stride (m - 1 - j)], bit by bit.
int window(std::uint32_t word, int m, int width, int stride, int j) {
  int level = 0;
  for (int bit = width - 1; bit >= 0; --bit)
    level = 2 * level + static_cast<int>(word >> (stride * (m - 1 - j) + bit) & 1);
  return level;
}

TEST(CcqWindowsTest, Ccq2IsAChainOfFourForEveryCode) {
  for (std::int32_t code = 0; code < 32768; ++code) {
    std::uint8_t levels[4];
    ccq2_levels(code, levels);
    for (int j = 0; j < 4; ++j)
      ASSERT_EQ(levels[j], window(static_cast<std::uint32_t>(code), 4, 6, 3, j)) << code;
  }
}

TEST(CcqWindowsTest, Ccq25IsChainsOfThreeAndFourForEveryWord) {
  for (std::uint32_t word = 0; word < 65536; ++word) {
    std::uint8_t levels[7];
    ccq25_levels(static_cast<std::uint16_t>(word), levels);
    for (int j = 0; j < 3; ++j) ASSERT_EQ(levels[j], window(word >> 9, 3, 3, 2, j)) << word;
    for (int j = 0; j < 4; ++j) ASSERT_EQ(levels[3 + j], window(word & 511, 4, 3, 2, j)) << word;
  }
}

TEST(CcqWindowsTest, Ccq275IsAChainOfThreeForEveryByte) {
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint8_t levels[3];
    ccq275_levels(static_cast<std::uint8_t>(byte), levels);
    for (int j = 0; j < 3; ++j) ASSERT_EQ(levels[j], window(byte, 3, 4, 2, j)) << byte;
  }
}

TEST(CcqWindowsTest, CodebooksAreTheLevelsOfEveryWord) {
  const auto ccq2 = ccq2_codebook({120, 1140});
  for (int b = 0; b < 256; ++b) {
    std::uint8_t levels[4];
    ccq2_levels(b * 120 + 1140, levels);
    for (int j = 0; j < 4; ++j)
      ASSERT_EQ(ccq2.values[static_cast<std::size_t>(4 * b + j)], levels[j] - 32);
  }
  const auto three = window_codebook(3, 3);
  const auto four = window_codebook(4, 3);
  const auto wide = window_codebook(3, 4);
  EXPECT_EQ(three.words, 128U);
  EXPECT_EQ(four.words, 512U);
  EXPECT_EQ(wide.words, 256U);
  for (std::uint32_t w = 0; w < 65536; ++w) {
    std::uint8_t levels[7];
    ccq25_levels(static_cast<std::uint16_t>(w), levels);
    for (std::size_t j = 0; j < 3; ++j) ASSERT_EQ(three.values[4 * (w >> 9) + j], levels[j] - 4);
    for (std::size_t j = 0; j < 4; ++j)
      ASSERT_EQ(four.values[4 * (w & 511) + j], levels[3 + j] - 4);
  }
  for (std::uint32_t b = 0; b < 256; ++b) {
    std::uint8_t levels[3];
    ccq275_levels(static_cast<std::uint8_t>(b), levels);
    for (std::size_t j = 0; j < 3; ++j) ASSERT_EQ(wide.values[4 * b + j], levels[j] - 8);
  }
}

Ccq2Tensors golden2() {
  Lcg random{2025};
  Ccq2Tensors t;
  t.k = 128;
  t.n = 4;
  for (int i = 0; i < 32 * 4; ++i)
    t.quant_weight.push_back(static_cast<std::uint8_t>(random.next() >> 24));
  for (int i = 0; i < 4; ++i)
    t.weight_scale.push_back(static_cast<std::uint8_t>(random.next() >> 24));
  t.code_scale = {121, 120, 123, 128.498F};
  t.code_zp = {950, 1140, 304, 0};
  for (int n = 0; n < 4; ++n)
    t.super_scales.push_back(f32_to_bf16(0.001F * static_cast<float>(n + 1)));
  return t;
}

TEST(CcqGoldenTest, Ccq2DecodesToThePublishedNumbers) {
  const auto t = golden2();
  const std::vector<std::uint8_t> first(t.quant_weight.begin(), t.quant_weight.begin() + 4);
  EXPECT_EQ(first, (std::vector<std::uint8_t>{0x05, 0xf4, 0x5a, 0xa0}));
  EXPECT_EQ(t.weight_scale, (std::vector<std::uint8_t>{0x12, 0x1d, 0x7f, 0xe7}));
  std::vector<float> out(512);
  ASSERT_TRUE(check(t.view()));
  decode(t.view(), out);
  const std::array row0 = {-0.0289840698F, 0.0539703369F, -0.210418701F, 0.447753906F};
  const std::array row64 = {0.0339813232F, -0.441757202F, 0.901794434F, -0.587677002F};
  for (std::size_t n = 0; n < 4; ++n) {
    EXPECT_EQ(out[n], row0[n]);
    EXPECT_EQ(out[64 * 4 + n], row64[n]);
  }
  EXPECT_NEAR(std::accumulate(out.begin(), out.end(), 0.0), 3.95144653, 1e-8);
  EXPECT_EQ(fnv1a(out), 0xf99319e5960863a8U);
}

TEST(CcqGoldenTest, Ccq25DecodesToThePublishedNumbers) {
  Lcg random{7};
  Ccq25Tensors t{64, 2, {}, {f32_to_bf16(1e-5F), f32_to_bf16(2e-5F)}};
  for (int i = 0; i < 20; ++i)
    t.quant_weight.push_back(static_cast<std::uint16_t>(random.next() >> 16));
  EXPECT_EQ(t.quant_weight[0], 0x3d20);
  EXPECT_EQ(t.quant_weight[1], 0xe9da);
  EXPECT_EQ(t.quant_weight[18], 0x795f);
  EXPECT_EQ(t.quant_weight[19], 0xda26);
  std::vector<float> out(128);
  decode(t, out);
  const std::array want = {-0.195114613F, 0.40218544F,  0.195114613F,
                           0.134061813F,  0.130076408F, 0.0F};
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(out[i], want[i]);
  EXPECT_EQ(out[126], -0.0650382042F);
  EXPECT_EQ(out[127], 0.268123627F);
  EXPECT_EQ(fnv1a(out), 0x522161e3a9863995U);
}

TEST(CcqGoldenTest, Ccq275DecodesToThePublishedNumbers) {
  Lcg random{9};
  Ccq275Tensors t{64, 2, {}, {f32_to_bf16(0.01F), f32_to_bf16(0.02F)}};
  for (int i = 0; i < 44; ++i)
    t.quant_weight.push_back(static_cast<std::uint8_t>(random.next() >> 24));
  EXPECT_EQ(t.quant_weight[0], 0x3d);
  EXPECT_EQ(t.quant_weight[1], 0x18);
  EXPECT_EQ(t.quant_weight[42], 0xa1);
  EXPECT_EQ(t.quant_weight[43], 0xd3);
  std::vector<float> out(128);
  decode(t, out);
  const std::array want = {-0.0500488281F, -0.420410156F, 0.0700683594F,
                           -0.120117188F,  0.0500488281F, 0.0F};
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(out[i], want[i]);
  EXPECT_EQ(out[126], 0.0200195312F);
  EXPECT_EQ(out[127], 0.300292969F);
  EXPECT_EQ(fnv1a(out), 0x810ab728e7c8cb20U);
}

TEST(CcqGoldenTest, TheWorkedExampleDecodes) {
  Ccq2Tensors t{128, 1, std::vector<std::uint8_t>(32, 0xA7), {0xC5}, {0x3A83}, {121}, {950}};
  t.quant_weight[1] = 0x5A;
  t.quant_weight[2] = 0x00;
  t.quant_weight[3] = 0xFF;
  std::vector<float> out(128);
  decode(t.view(), out);
  const std::array values = {9, -22, -12, 5, -9, 25, -24, -32, -31, -18, 22, 22, 30, 16, -25, 29};
  const float super = bf16_to_f32(0x3A83);
  for (std::size_t k = 0; k < values.size(); ++k)
    EXPECT_EQ(out[k], static_cast<float>(values[k]) * (12 * super));
  EXPECT_NEAR(out[1], -0.26385498, 1e-8);
  EXPECT_NEAR(out[64], 9 * 0.0049972534, 1e-8) << "the odd group has the low nibble";
  t.code_scale = {128.5F};
  t.code_zp = {-3.25F};
  decode(t.view(), out);
  const std::array broken = {-10, 20, 5, 10};
  for (std::size_t j = 0; j < 4; ++j)
    EXPECT_EQ(out[4 + j], static_cast<float>(broken[j]) * (12 * super));
}

TEST(CcqGoldenTest, TheWorkedExampleEncodes) {
  const auto book = ccq2_codebook({121, 950});
  const std::array w = {0.0131F, -0.0242F, 0.0056F, -0.0018F};
  alignas(64) float x[4][kLanes];
  alignas(64) float step[kLanes];
  alignas(64) std::int32_t chosen[kLanes];
  for (std::size_t i = 0; i < kLanes; ++i) {
    for (std::size_t j = 0; j < 4; ++j) x[j][i] = w[j];
    step[i] = i == 7 ? 0 : 12 * round_to_bf16(0.0001F);
  }
  for (const Isa isa : available_isas()) {
    lane_kernels_for(isa).choose_word(
        x[0], {book.weights, book.words, book.values.data(), book.norms.data()}, step, chosen);
    for (std::size_t i = 0; i < kLanes; ++i)
      EXPECT_EQ(chosen[i], i == 7 ? 0 : 0xA8) << isa_name(isa);
  }
}

/// Tensors as a stranger may write them: odd constants, no padding.
Ccq2Tensors foreign(std::size_t k, std::size_t n) {
  Lcg random{99};
  Ccq2Tensors t;
  t.k = k;
  t.n = n;
  for (std::size_t i = 0; i < k / 4 * n; ++i)
    t.quant_weight.push_back(static_cast<std::uint8_t>(random.next() >> 24));
  for (std::size_t i = 0; i < (k + 127) / 128 * n; ++i)
    t.weight_scale.push_back(static_cast<std::uint8_t>(random.next() >> 24));
  for (std::size_t i = 0; i < n; ++i) {
    t.super_scales.push_back(f32_to_bf16(0.001F * static_cast<float>(i + 1)));
    t.code_scale.push_back(100 + static_cast<float>(random.next() >> 8) * 0x1p-19F);
    t.code_zp.push_back(static_cast<float>(random.next() >> 8) * 0x1p-14F - 200);
  }
  return t;
}

TEST(CcqPanelsTest, EveryWeightOfPublishedTensorsIsThatOfTheReaderRule) {
  for (const auto& t : {golden2(), foreign(64, 33), foreign(192, 70), foreign(256, 1)}) {
    const auto packed = pack_ccq2(t.view(), t.k);
    ASSERT_TRUE(packed) << packed.error().what;
    for (std::size_t n = 0; n < t.n; ++n) {
      ASSERT_EQ(row_scale(*packed, n / 32, n % 32), bf16_to_f32(t.super_scales[n]));
      for (std::size_t k = 0; k < packed->padded_cols(); ++k) {
        int want = 0;
        if (k < t.k) {
          const float product = t.quant_weight[k / 4 * t.n + n] * t.code_scale[n];
          const float sum = product + t.code_zp[n];
          const auto code = static_cast<std::int32_t>(std::floor(sum + 0.5F));
          const int both = t.weight_scale[k / 128 * t.n + n];
          const int l = k / 64 % 2 == 0 ? both >> 4 : both & 15;
          want = ((code >> (9 - 3 * (k % 4)) & 63) - 32) * l;
        }
        ASSERT_EQ(integer_weight(*packed, n / 32, n % 32, k), want) << n << ' ' << k;
      }
    }
  }
}

TEST(CcqPanelsTest, UnpackingUndoesPacking) {
  for (const auto& t : {golden2(), foreign(256, 70)}) {
    const auto packed = pack_ccq2(t.view(), t.k);
    ASSERT_TRUE(packed);
    const auto back = unpack_ccq2(*packed);
    EXPECT_EQ(back.quant_weight, t.quant_weight);
    EXPECT_EQ(back.weight_scale, t.weight_scale);
    EXPECT_EQ(back.super_scales, t.super_scales);
    EXPECT_EQ(back.code_scale, t.code_scale);
    EXPECT_EQ(back.code_zp, t.code_zp);
  }
}

TEST(CcqPanelsTest, AFusedMatrixInterleavesItsHalves) {
  const auto t = foreign(128, 2 * 40);
  const auto both = pack_ccq2_gate_up(t.view(), 128);
  const auto plain = pack_ccq2(t.view(), 128);
  ASSERT_TRUE(both && plain);
  EXPECT_EQ(both->rows, 40U);
  EXPECT_EQ(weights_of(*both), weights_of(*plain));
  EXPECT_EQ(unpack_ccq2(*both).quant_weight, t.quant_weight);
  EXPECT_EQ(pack_ccq2_gate_up(foreign(128, 7).view(), 128).error().code, Errc::kShapeMismatch);
}

TEST(CcqPanelsTest, WithoutSuperScalesTheyAreOne) {
  auto t = foreign(128, 5);
  t.super_scales.clear();
  const auto packed = pack_ccq2(t.view(), 128);
  ASSERT_TRUE(packed);
  EXPECT_EQ(row_scale(*packed, 0, 4), 1.0F);
}

TEST(CcqPanelsTest, SlicesOfColumnsAreTheColumnsOfTheWhole) {
  const auto whole = foreign(192, 24);
  std::vector<float> want(192 * 24);
  decode(whole.view(), want);
  for (std::size_t part = 0; part < 2; ++part) {
    Ccq2Tensors t;
    t.k = 192;
    t.n = 12;
    const auto slice = [&](const auto& from, auto& to) {
      for (std::size_t r = 0; r < from.size() / 24; ++r)
        to.insert(to.end(), from.begin() + static_cast<std::ptrdiff_t>(r * 24 + part * 12),
                  from.begin() + static_cast<std::ptrdiff_t>(r * 24 + part * 12 + 12));
    };
    slice(whole.quant_weight, t.quant_weight);
    slice(whole.weight_scale, t.weight_scale);
    slice(whole.super_scales, t.super_scales);
    slice(whole.code_scale, t.code_scale);
    slice(whole.code_zp, t.code_zp);
    std::vector<float> got(192 * 12);
    decode(t.view(), got);
    for (std::size_t k = 0; k < 192; ++k)
      for (std::size_t n = 0; n < 12; ++n) ASSERT_EQ(got[k * 12 + n], want[k * 24 + part * 12 + n]);
  }
}

/// Units and scales of any bits.
template <class Word>
CcqTensors<Word> any_units(std::size_t k, std::size_t n, std::size_t of_group) {
  Lcg random{static_cast<std::uint32_t>(k + n)};
  CcqTensors<Word> t{k, n, {}, {}};
  for (std::size_t i = 0; i < k / 64 * of_group * n; ++i)
    t.quant_weight.push_back(static_cast<Word>(random.next() >> 8));
  for (std::size_t i = 0; i < n; ++i)
    t.super_scales.push_back(f32_to_bf16(1e-4F * static_cast<float>(i + 1)));
  return t;
}

TEST(CcqPanelsTest, PanelsOf25And275BitsHoldWhatTheFilesDecodeTo) {
  const auto same = [](const auto& t, const auto& packed, const auto& back) {
    ASSERT_TRUE(packed) << packed.error().what;
    EXPECT_EQ(packed->padded_cols(), t.k);
    std::vector<float> decoded(t.k * t.n);
    decode(t, decoded);
    const auto got = weights_of(*packed);
    for (std::size_t n = 0; n < t.n; ++n)
      for (std::size_t k = 0; k < packed->cols; ++k)
        ASSERT_EQ(got[n * packed->cols + k], decoded[k * t.n + n]) << n << ' ' << k;
    EXPECT_EQ(back.quant_weight, t.quant_weight);
    EXPECT_EQ(back.super_scales, t.super_scales);
  };
  for (const auto& [k, n] : {std::pair{64, 1}, std::pair{192, 70}, std::pair{512, 33}}) {
    const auto rows = static_cast<std::size_t>(k), columns = static_cast<std::size_t>(n);
    const auto a = any_units<std::uint16_t>(rows, columns, 10);
    const auto b = any_units<std::uint8_t>(rows, columns, 22);
    const auto packed_a = pack_ccq25(a, rows - 7);
    const auto packed_b = pack_ccq275(b, rows - 7);
    same(a, packed_a, unpack_ccq25(*packed_a));
    same(b, packed_b, unpack_ccq275(*packed_b));
    // 2.5 and 2.75 bits a weight, and a scale a row.
    EXPECT_EQ(packed_a->panel_bytes(), 128 + rows * 32 * 10 / 32);
    EXPECT_EQ(packed_b->panel_bytes(), 128 + rows * 32 * 11 / 32);
  }
}

TEST(CcqCheckTest, BrokenUnitsAreNamed) {
  const auto says = [](auto&& change, std::size_t cols) {
    auto t = any_units<std::uint8_t>(128, 3, 22);
    change(t);
    const auto packed = pack_ccq275(t, cols);
    return packed ? "" : packed.error().what;
  };
  EXPECT_EQ(says([](auto&) {}, 128), "");
  EXPECT_EQ(says([](auto&) {}, 129), "quant_weight: K 128 for 129 input features");
  EXPECT_EQ(says([](auto&) {}, 64), "quant_weight: K 128 for 64 input features");
  EXPECT_EQ(says([](auto& t) { t.quant_weight.pop_back(); }, 128),
            "quant_weight: 131 elements, 132 expected");
  EXPECT_EQ(says([](auto& t) { t.super_scales.pop_back(); }, 128),
            "super_scales: 2 elements, 3 expected");
  EXPECT_EQ(says([](auto& t) { t.super_scales[1] = 0x7f80; }, 128),
            "super_scales: column 1 is inf");
}

TEST(CcqCheckTest, BrokenTensorsAreNamed) {
  const auto says = [](auto&& change) {
    auto t = foreign(192, 3);
    change(t);
    const auto packed = pack_ccq2(t.view(), 192);
    return packed ? "" : packed.error().what;
  };
  EXPECT_EQ(says([](Ccq2Tensors&) {}), "");
  EXPECT_EQ(says([](Ccq2Tensors& t) { t.quant_weight.pop_back(); }),
            "quant_weight: 143 elements, 144 expected");
  EXPECT_EQ(says([](Ccq2Tensors& t) { t.weight_scale.resize(3); }),
            "weight_scale: 3 elements, 6 expected");
  EXPECT_EQ(says([](Ccq2Tensors& t) { t.k = 96; }), "quant_weight: K 96 is not a multiple of 64");
  EXPECT_EQ(says([](Ccq2Tensors& t) { t.super_scales[2] = 0x7f80; }),
            "super_scales: column 2 is inf");
  EXPECT_NE(says([](Ccq2Tensors& t) { t.code_zp[1] = std::nanf(""); }).find("column 1"),
            std::string::npos);
  EXPECT_NE(says([](Ccq2Tensors& t) { t.code_scale[0] = 1e9F; }).find("column 0"),
            std::string::npos);
  EXPECT_EQ(pack_ccq2(foreign(64, 3).view(), 65).error().code, Errc::kShapeMismatch);
  EXPECT_EQ(pack_ccq2(foreign(192, 3).view(), 64).error().code, Errc::kShapeMismatch);
}

TEST(CcqCheckTest, FusingChangesSomeForeignColumnsAndNoIntegralOnes) {
  auto t = foreign(64, 200);
  const auto columns = columns_that_fusing_changes(t.view());
  EXPECT_GT(columns.size(), 0U);
  EXPECT_LT(columns.size(), 200U);
  EXPECT_TRUE(std::is_sorted(columns.begin(), columns.end()));
  const auto pairs = ccq2_code_pairs();
  for (std::size_t n = 0; n < t.n; ++n) {
    t.code_scale[n] = static_cast<float>(pairs[n % 16].scale);
    t.code_zp[n] = static_cast<float>(pairs[n % 16].zero);
  }
  EXPECT_TRUE(columns_that_fusing_changes(t.view()).empty());
}

TEST(CcqCheckTest, OurPairsStayWithinFifteenBits) {
  EXPECT_EQ(ccq2_code_pairs().size(), 16U);
  for (const auto pair : ccq2_code_pairs()) EXPECT_TRUE(is_valid(pair)) << pair.scale;
  EXPECT_FALSE(is_valid({128, 200}));
  EXPECT_FALSE(is_valid({121, -1}));
}

}  // namespace
}  // namespace moesaic
