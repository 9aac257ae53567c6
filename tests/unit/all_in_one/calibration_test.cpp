#include "services/all_in_one/calibration/calibration.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <set>

#include "services/all_in_one/calibration/layer_log.hpp"
#include "services/all_in_one/calibration/moment.hpp"
#include "services/all_in_one/case_file.hpp"
#include "services/all_in_one/eval/known_answer.hpp"
#include "tests/support/json.hpp"
#include "tests/support/temp_dir.hpp"

namespace moesaic {
namespace {

using enum WeightKind;

const std::filesystem::path kDemo =
    std::filesystem::path(MOESAIC_SOURCE_DIR) / "configs/models/ernie-vl-demo";

ModelOptions demo() {
  ModelOptions options;
  options.model = kDemo.string();
  options.threads = 2;
  return options;
}

/// Every 12th item: pictures, videos, text, chains of thought.
std::vector<ChatItem> some_items() {
  const auto items = read_chat_items(kDemo / "eval/items.jsonl");
  EXPECT_TRUE(items) << items.error().what;
  std::vector<ChatItem> some;
  for (std::size_t i = 0; i < items->size(); i += 12) some.push_back((*items)[i]);
  return some;
}

/// [rows][cols] in f64, and how often each row counts.
using Rows = std::vector<std::vector<double>>;

std::vector<double> plain_moment(const Rows& rows, std::size_t cols) {
  std::vector<double> sum(cols * cols);
  for (const auto& x : rows)
    for (std::size_t i = 0; i < cols; ++i)
      for (std::size_t j = 0; j < cols; ++j)
        sum[i * cols + j] += x[i] * x[j] / static_cast<double>(rows.size());
  return sum;
}

std::vector<double> mixed(const std::vector<double>& own, double n, const std::vector<double>& all,
                          double kappa) {
  std::vector<double> out(own.size());
  for (std::size_t i = 0; i < own.size(); ++i) out[i] = (n * own[i] + kappa * all[i]) / (n + kappa);
  return out;
}

/// Largest difference, as a share of the largest diagonal value.
double distance(const InputStatistics& got, const std::vector<double>& want) {
  EXPECT_EQ(got.second_moment.size(), want.size());
  double most = 0, scale = 0;
  for (std::size_t i = 0; i < got.cols; ++i) scale = std::max(scale, want[i * got.cols + i]);
  for (std::size_t i = 0; i < want.size(); ++i)
    most = std::max(most, std::abs(double{got.second_moment[i]} - want[i]));
  return most / scale;
}

TEST(MomentTest, EqualsThePlainSumAndIsSymmetric) {
  constexpr std::size_t kCols = 45, kRows = 1100;  // odd, and over two blocks of rows
  std::vector<Bf16> values(kRows * kCols);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = f32_to_bf16(static_cast<float>(std::sin(static_cast<double>(i * i % 9973))));
  std::vector<std::uint32_t> picked;
  for (std::uint32_t row = 0; row < kRows; row += (row % 7 == 3 ? 2 : 1)) picked.push_back(row);
  picked.push_back(5);  // twice
  Rows rows;
  for (const auto row : picked) {
    rows.emplace_back();
    for (std::size_t c = 0; c < kCols; ++c)
      rows.back().push_back(bf16_to_f32(values[row * kCols + c]));
  }
  ThreadPool pool(2);
  const auto got = second_moment(values, kCols, picked, pool);
  EXPECT_EQ(got.rows, picked.size());
  EXPECT_LT(distance(got, plain_moment(rows, kCols)), 1e-6);  // f32 sums of 512
  for (std::size_t i = 0; i < kCols; ++i)
    for (std::size_t j = 0; j < i; ++j)
      ASSERT_EQ(got.second_moment[i * kCols + j], got.second_moment[j * kCols + i]);
}

TEST(MomentTest, NoRowsGiveZeros) {
  ThreadPool pool(1);
  const auto got = second_moment({}, 3, {}, pool);
  EXPECT_EQ(got.rows, 0U);
  EXPECT_EQ(got.second_moment, std::vector<float>(9, 0.0F));
}

TEST(MomentTest, FewRowsAreBlendedWithMany) {
  InputStatistics own{1, {8.0F}, 1024};
  blend(own, {1, {2.0F}, 100000}, 2048);
  EXPECT_NEAR(own.second_moment[0], 4.0, 1e-6);  // a third of 8 and two thirds of 2
  EXPECT_EQ(own.rows, 1024U);
  InputStatistics none{1, {0.0F}, 0};
  blend(none, {1, {2.0F}, 9}, 2048);
  EXPECT_EQ(none.second_moment[0], 2.0F);
}

/// What `forward` shows of one layer of the whole model, item by item, in plain f64.
class CalibrationTest : public testing::Test {
 protected:
  static constexpr std::uint32_t kLayer = 3;
  static constexpr std::size_t kFew = 200;  // between what text and vision experts see here

  void SetUp() override {
    items_ = some_items();
    auto model = load_model(demo());
    ASSERT_TRUE(model) << model.error().what;
    model_ = std::move(*model);
    const auto& config = model_.config;
    auto encoder = ItemEncoder::load(kDemo, config, model_.compute, model_.vision, model_.pool);
    ASSERT_TRUE(encoder) << encoder.error().what;
    for (const auto& item : items_) {
      auto encoded = encoder->encode(item, true);
      ASSERT_TRUE(encoded) << encoded.error().what;
      auto sequence = known_sequence(config, std::move(*encoded));
      ASSERT_TRUE(sequence) << sequence.error().what;
      run(*sequence);
    }
  }

  void run(Sequence& sequence) {
    const auto& config = model_.config;
    LocalExperts experts(config, model_.gates, model_.experts.front(), *model_.pool);
    const auto rows = sequence.tokens.size();
    PagedKvCache kv(DecoderStep::attention_shape(config, model_.compute), config.layers,
                    kv_blocks_for(rows));
    while (const auto block = kv.allocate()) sequence.blocks.push_back(*block);
    DecoderStep step(config, model_.decoder, model_.compute, kv, experts, *model_.pool);
    TensorCollector taps(true);
    step.set_taps(&taps);
    StepBatch batch;
    append_rows(sequence, 0, rows, batch);
    ASSERT_TRUE(step.run(batch));
    const auto tensors = taps.take();
    const auto add = [&](const std::string& name, Rows& to) {
      const auto& tensor = tensors.at("layer." + std::to_string(kLayer) + name);
      const auto values = tensor.as<float>();
      const auto width = values.size() / rows;
      for (std::size_t r = 0; r < rows; ++r)
        to.emplace_back(values.begin() + static_cast<std::ptrdiff_t>(r * width),
                        values.begin() + static_cast<std::ptrdiff_t>((r + 1) * width));
    };
    add(".input_norm", attention_in_);
    add(".attn_heads", attended_);
    add(".post_norm", ffn_in_);
    const auto normed = tensors.at("final_norm").as<float>();
    for (std::size_t r = sequence.request->prompt.size() - 1; r + 1 < rows; ++r)
      output_in_.emplace_back(
          normed.begin() + static_cast<std::ptrdiff_t>(r * config.hidden),
          normed.begin() + static_cast<std::ptrdiff_t>((r + 1) * config.hidden));
    const auto ids = tensors.at("router." + std::to_string(kLayer) + ".index").as<std::int32_t>();
    for (std::size_t r = 0; r < rows; ++r) {
      const auto k = config.experts_per_token;
      chosen_.emplace_back(ids.begin() + static_cast<std::ptrdiff_t>(r * k),
                           ids.begin() + static_cast<std::ptrdiff_t>((r + 1) * k));
      modality_.push_back(sequence.modality(r));
    }
  }

  /// Rows of the layer that chose the expert.
  Rows rows_of(Modality modality, std::int32_t expert) const {
    Rows rows;
    for (std::size_t r = 0; r < ffn_in_.size(); ++r)
      if (modality_[r] == modality &&
          std::find(chosen_[r].begin(), chosen_[r].end(), expert) != chosen_[r].end())
        rows.push_back(ffn_in_[r]);
    return rows;
  }

  /// silu(gate x) * (up x), rounded to bf16.
  Rows hidden_of(const Rows& in, const WeightId& gate_id, WeightKind up_kind) const {
    auto options = demo();
    const auto opened = open_model(options);
    EXPECT_TRUE(opened);
    auto up_id = gate_id;
    up_id.kind = up_kind;
    const auto gate = opened->source->get(gate_id).value();
    const auto up = opened->source->get(up_id).value();
    Rows out;
    for (const auto& x : in) {
      out.emplace_back();
      for (std::size_t n = 0; n < gate.view.rows; ++n) {
        double g = 0, u = 0;
        for (std::size_t c = 0; c < x.size(); ++c) {
          g += x[c] * double{element_f32(gate.view, n, c)};
          u += x[c] * double{element_f32(up.view, n, c)};
        }
        out.back().push_back(double{round_to_bf16(static_cast<float>(g / (1 + std::exp(-g)) * u))});
      }
    }
    return out;
  }

  std::vector<ChatItem> items_;
  LoadedModel model_;
  Rows attention_in_, attended_, ffn_in_, output_in_;
  std::vector<std::vector<std::int32_t>> chosen_;
  std::vector<Modality> modality_;
};

TEST_F(CalibrationTest, StatisticsEqualThoseOfTheWholeModelsIntermediates) {
  CalibrationSettings settings;
  settings.kappa = 100;
  settings.few_rows = kFew;
  settings.pooled_rows = 1 << 20;
  std::vector<std::pair<std::size_t, std::size_t>> encoded;
  settings.encoded = [&](std::size_t items, std::size_t tokens) {
    encoded.emplace_back(items, tokens);
  };
  const auto started = Calibration::start(demo(), items_, settings);
  ASSERT_TRUE(started) << started.error().what;
  auto& calibration = **started;
  ASSERT_EQ(encoded.size(), items_.size());
  EXPECT_EQ(encoded.back(), std::pair(items_.size(), calibration.rows()));
  EXPECT_EQ(calibration.rows(), ffn_in_.size());
  const std::size_t hidden = model_.config.hidden;
  const auto get = [&](const WeightId& id) {
    const auto found = calibration.for_weight(id);
    EXPECT_TRUE(found) << found.error().what;
    return *found;
  };

  const auto qkv = get({kQuery, kLayer});
  EXPECT_EQ(qkv->rows, ffn_in_.size());
  EXPECT_LT(distance(*qkv, plain_moment(attention_in_, hidden)), 1e-6);
  EXPECT_EQ(get({kValue, kLayer}), qkv) << "one for query, key and value";
  const auto attended = get({kAttnOut, kLayer});
  EXPECT_LT(distance(*attended, plain_moment(attended_, attended_[0].size())), 1e-6);
  const auto all = plain_moment(ffn_in_, hidden);
  EXPECT_LT(distance(*get({kSharedGate, kLayer}), all), 1e-6);
  const auto shared = hidden_of(ffn_in_, {kSharedGate, kLayer}, kSharedUp);
  // Sums in another order round a few hidden values to the neighbouring bf16.
  EXPECT_LT(distance(*get({kSharedDown, kLayer}), plain_moment(shared, shared[0].size())), 1e-3);

  bool few = false, many = false;
  for (const auto modality : {Modality::kText, Modality::kVision})
    for (std::uint32_t expert = 0; expert < 16; expert += 3) {
      const auto rows = rows_of(modality, static_cast<std::int32_t>(expert));
      const auto n = static_cast<double>(rows.size());
      const auto input = get({kExpertUp, kLayer, modality, expert});
      EXPECT_EQ(input->rows, rows.size());
      const auto own = plain_moment(rows, hidden);
      EXPECT_LT(distance(*input, mixed(own, n, all, 100)), 1e-6) << expert;
      const auto down = get({kExpertDown, kLayer, modality, expert});
      const auto width = model_.config.expert_width[static_cast<std::size_t>(modality)];
      ASSERT_EQ(down->cols, width);
      const WeightId gate{kExpertGate, kLayer, modality, expert};
      auto want = plain_moment(hidden_of(rows, gate, kExpertUp), width);
      (rows.size() < kFew ? few : many) = true;
      if (rows.size() < kFew)
        want = mixed(want, n, plain_moment(hidden_of(ffn_in_, gate, kExpertUp), width), 100);
      EXPECT_LT(distance(*down, want), 1e-3) << expert;
    }
  EXPECT_TRUE(few && many) << "both kinds of experts are looked at";
  const auto output = get({kEmbedding});
  EXPECT_EQ(output->rows, output_in_.size());
  EXPECT_LT(distance(*output, plain_moment(output_in_, hidden)), 1e-6);
}

TEST_F(CalibrationTest, LayersComeInOrderSomeMayBeLeftOutAndVectorsHaveNone) {
  const auto items = std::span(items_).first(3);
  const auto started = Calibration::start(demo(), items);
  ASSERT_TRUE(started) << started.error().what;
  auto& calibration = **started;
  for (const auto kind : {kInputNorm, kRouter, kVitQkv, kResamplerMlp}) {
    const auto none = calibration.for_weight({kind, 0});
    ASSERT_TRUE(none) << none.error().what;
    EXPECT_EQ(*none, nullptr);
  }
  const auto dense = calibration.for_weight({kDenseDown, 0});
  ASSERT_TRUE(dense) << dense.error().what;
  EXPECT_EQ((*dense)->cols, model_.config.intermediate);
  EXPECT_GT((*dense)->second_moment[0], 0);
  const auto get = [](Calibration& of, std::uint32_t layer, std::uint32_t expert) {
    const auto found = of.for_weight({kExpertGate, layer, Modality::kText, expert});
    EXPECT_TRUE(found) << found.error().what;
    return (*found)->second_moment;
  };
  const auto early = get(calibration, 1, 0), other = get(calibration, 1, 8);
  EXPECT_NE(early, other);
  EXPECT_EQ(get(calibration, 1, 0), early);
  const auto late = get(calibration, 5, 0);
  EXPECT_NE(late, early);
  const auto back = calibration.for_weight({kQuery, 1});
  ASSERT_FALSE(back);
  EXPECT_THAT(back.error().what, testing::HasSubstr("layer 1 after layer 5"));
  const auto again = Calibration::start(demo(), items);
  ASSERT_TRUE(again);
  EXPECT_EQ(get(**again, 5, 0), late) << "the layers before were run, too";
}

TEST_F(CalibrationTest, GoesOnWithTheRowsThatWereKept) {
  const auto items = std::span(items_).first(3);
  test::TempDir temp;
  const auto path = temp.path() / "rows";
  const auto get = [&](const char* key, std::uint32_t layer) {
    CalibrationSettings settings;
    settings.kept.emplace(path, key);
    const auto started = Calibration::start(demo(), items, std::move(settings));
    EXPECT_TRUE(started) << started.error().what;
    const auto found = (*started)->for_weight({kQuery, layer});
    EXPECT_TRUE(found) << found.error().what;
    return (*found)->second_moment;
  };
  const auto third = get("a key", 3);
  const auto fourth = get("a key", 4);
  EXPECT_EQ(get("a key", 4), fourth);
  // They are what is gone on with: doubled, as another key's or a later layer's they are not.
  const RowsFile file(path, "a key");
  std::vector<float> rows(std::filesystem::file_size(path) / sizeof(float) - 30);
  ASSERT_EQ(file.read(5, rows).value(), 4U);
  EXPECT_EQ(file.read(3, rows).value(), std::nullopt) << "of a later layer";
  EXPECT_EQ(file.read(5, std::span(rows).first(7)).value(), std::nullopt) << "of another size";
  EXPECT_EQ(RowsFile(path, "another").read(5, rows).value(), std::nullopt);
  for (auto& x : rows) x *= 2;
  rows.front() += 100;
  ASSERT_TRUE(file.write(4, rows));
  EXPECT_NE(get("a key", 4), fourth);
  EXPECT_EQ(get("a key", 3), third);
  ASSERT_TRUE(file.write(4, rows));
  EXPECT_EQ(get("another", 4), fourth);
  file.remove();
  EXPECT_TRUE(std::filesystem::is_empty(temp.path()));
}

TEST_F(CalibrationTest, WhatDoesNotFitIsRefusedWithNumbers) {
  CalibrationSettings settings;
  settings.memory = calibration_memory(model_.config, 100, 100, true).peak();
  const auto started = Calibration::start(demo(), items_, std::move(settings));
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code, Errc::kTooLarge);
  EXPECT_THAT(started.error().what,
              testing::AllOf(testing::ContainsRegex("items.jsonl:[0-9]+: [0-9]+ tokens need"),
                             testing::HasSubstr("GB of rows"), testing::HasSubstr("available")));
}

TEST(LayerLogTest, TellsRateAndTimeLeft) {
  const auto config = load_model_config(kDemo);
  ASSERT_TRUE(config);
  const auto start = LayerLog::Clock::now();
  LayerLog log(*config, start);
  // Attention and the dense feed-forward: 192 x 32 (6 + 2 + 2 + 6) and 3 x 192 x 576.
  EXPECT_EQ(log.done(0, start + std::chrono::milliseconds(430))
                .find("layer 1 of 6: 0.4 s, 1.0 M weights/s, about "),
            0U);
  // A run that goes on counts its own layers only.
  LayerLog late(*config, start);
  EXPECT_EQ(late.done(5, start + std::chrono::seconds(2)).find("layer 6 of 6: 2.0 s, "), 0U);
  EXPECT_THAT(late.done(5, start + std::chrono::seconds(3)),
              testing::AllOf(testing::StartsWith("layer 6 of 6: 1.0 s"),
                             testing::EndsWith("about 0.0 min left")));
}

TEST(LayerLogTest, KnowsADenseLayerFromOneWithExperts) {
  const auto config = load_model_config(kDemo.parent_path() / "ernie-4.5-vl-28b-a3b.json");
  ASSERT_TRUE(config) << config.error().what;
  // Measured: 51 s for the dense layer, then 94 s for each of the others.
  const auto start = LayerLog::Clock::now();
  LayerLog log(*config, start);
  const auto told = log.done(0, start + std::chrono::seconds(51));
  const auto about = told.find("about ");
  ASSERT_NE(about, std::string::npos);
  EXPECT_NEAR(std::stod(told.substr(about + 6)), 27 * 94 / 60.0, 6) << told;
}

TEST(CalibrationItemsTest, TheDemoModelsSetIsAnotherThanTheHeldOutOne) {
  const auto items = read_chat_items(kDemo / "calibration/items.jsonl");
  ASSERT_TRUE(items) << items.error().what;
  const auto held_out = read_chat_items(kDemo / "eval/items.jsonl");
  ASSERT_TRUE(held_out) << held_out.error().what;
  std::set<std::string> seen;
  const auto content = [](const ChatItem& item) {
    std::string all;
    for (const auto& visual : item.visuals)
      for (const auto& frame : visual.frames) all += test::file_bytes(frame.file);
    for (const auto& message : item.messages)
      for (const auto& part : message.parts) all += '\0' + part.text;
    return all;
  };
  for (const auto& item : *held_out) seen.insert(content(item));
  for (const auto& item : *items) EXPECT_EQ(seen.count(content(item)), 0U) << item.where;
  const auto started = Calibration::start(demo(), *items);
  ASSERT_TRUE(started) << started.error().what;
  EXPECT_EQ((*started)->rows(), 16583U) << "as its README says";
}

TEST(CalibrationItemsTest, BadFilesAreRefusedByFileAndLine) {
  test::TempDir temp;
  const auto path = temp.path() / "set.jsonl";
  std::ofstream(temp.path() / "no.png") << "not a picture";
  const std::string good = R"({"messages": [{"role": "user", "content": "Hi"}], "answer": "x"})";
  const auto picture = [](const std::string& name) {
    return R"({"messages": [{"role": "user", "content": [{"type": "image", "image": ")" + name +
           R"("}]}], "answer": "x"})";
  };
  std::string words;
  for (int i = 0; i < 50000; ++i) words += "seven red hats ";
  const std::pair<std::string, const char*> cases[] = {
      {"", "set.jsonl: no items"},
      {"\n  \n", "set.jsonl: no items"},
      {good + "\n" + good.substr(0, 40) + "\n", "set.jsonl:2: not JSON: "},
      {good + "\n{\"messages\": 3}\n", "set.jsonl:2: messages: a list"},
      {good + "\n\n" + picture("gone.png"), "set.jsonl:3: messages[0].content[0]: no picture"},
      {picture("no.png"), "no.png: "},
      {R"({"messages": [{"role": "user", "content": ")" + words + R"("}], "answer": "x"})",
       "tokens, the context holds "},
  };
  for (const auto& [content, want] : cases) {
    std::ofstream(path) << content;
    const auto items = read_chat_items(path);
    std::string error;
    if (items) {
      const auto started = Calibration::start(demo(), *items);
      ASSERT_FALSE(started) << want;
      error = started.error().what;
    } else {
      error = items.error().what;
    }
    EXPECT_THAT(error, testing::StartsWith(path.string()));
    EXPECT_THAT(error, testing::HasSubstr(want));
  }
  EXPECT_EQ(read_chat_items(temp.path() / "none.jsonl").error().code, Errc::kNotFound);
}

TEST(CalibrationItemsTest, AnItemThatCannotBeRunIsNamed) {
  ChatItem item;
  item.where = "set.jsonl:4";
  item.thinking = true;
  item.messages.push_back({"user", {{ContentPart::Kind::kText, "Hi"}}, std::nullopt});
  item.answer = "x";
  const auto started = Calibration::start(demo(), std::span(&item, 1));
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().what, testing::HasSubstr("set.jsonl:4: "));
}

}  // namespace
}  // namespace moesaic
