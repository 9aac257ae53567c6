#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "common/model/pack.hpp"
#include "services/all_in_one/calibration/calibration.hpp"
#include "services/all_in_one/eval/evaluate.hpp"
#include "tests/support/json.hpp"
#include "tests/support/temp_dir.hpp"

namespace moesaic {
namespace {

const std::filesystem::path kDemo =
    std::filesystem::path(MOESAIC_SOURCE_DIR) / "configs/models/ernie-vl-demo";

ModelOptions model_at(const std::filesystem::path& dir) {
  ModelOptions options;
  options.model = dir.string();
  options.threads = 2;
  return options;
}

std::vector<ChatItem> demo_set(const std::string& set) {
  auto items = read_chat_items(kDemo / set / "items.jsonl");
  EXPECT_TRUE(items) << items.error().what;
  return std::move(*items);
}

class CalibratedPackTest : public testing::TestWithParam<WeightFormat> {
 protected:
  Result<void> pack(QuantMethod method, StatisticsSource statistics, const std::string& name) {
    MOESAIC_TRY(const auto config, load_model_config(kDemo));
    MOESAIC_TRY(const auto source, open_checkpoint(kDemo, config));
    PackOptions options;
    if (GetParam() == WeightFormat::kW4r) {
      options.policy = PackPolicy::uniform(GetParam());
    } else {
      for (const auto component : {Component::kTextExperts, Component::kVisionExperts})
        options.policy.add({component, 0, 0xffffffffU, GetParam()});
    }
    options.method = method;
    options.statistics = std::move(statistics);
    options.copy_from = kDemo;
    ThreadPool pool(2);
    return write_pack(config, test::file_bytes(kDemo / "config.json"), *source, options,
                      dir_ / name, pool, {});
  }

  double divergence(const std::string& name, const std::vector<ChatItem>& items) {
    EvalSettings settings;
    settings.accuracy = false;
    settings.kl = true;
    const auto report = evaluate(model_at(dir_ / name), model_at(kDemo), items, settings);
    EXPECT_TRUE(report) << report.error().what;
    return report->all.divergence.mean();
  }

  test::TempDir dir_;
};

TEST_P(CalibratedPackTest, IsNearerTheModelThanRounding) {
  const auto calibration = Calibration::start(model_at(kDemo), demo_set("calibration"));
  ASSERT_TRUE(calibration) << calibration.error().what;
  std::size_t asked = 0;
  const auto statistics = [&](const WeightId& id) {
    ++asked;
    return (*calibration)->for_weight(id);
  };
  const auto rounded = pack(QuantMethod::kAbsmax, {}, "rounded");
  ASSERT_TRUE(rounded) << rounded.error().what;
  const auto calibrated = pack(QuantMethod::kCalibrated, statistics, "calibrated");
  ASSERT_TRUE(calibrated) << calibrated.error().what;
  // Layers, modalities, experts, matrices; of the whole text side also QKV, attention's output and
  // the feed-forward's two in each of six layers, and the embedding.
  EXPECT_EQ(asked, 5U * 2 * 16 * 2 + (GetParam() == WeightFormat::kW4r ? 6 * 4 + 1 : 0));
  // All items: a few positions make up much of the mean.
  const auto items = demo_set("eval");
  EXPECT_LT(divergence("calibrated", items), divergence("rounded", items));
}

TEST_P(CalibratedPackTest, NoStatisticsAreAnErrorAndNoPack) {
  const auto done = pack(QuantMethod::kCalibrated, {}, "none");
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Errc::kInvalidArgument);
  EXPECT_FALSE(is_pack(dir_ / "none"));
  const auto failing = [](const WeightId&) -> Result<std::shared_ptr<const InputStatistics>> {
    return fail(Errc::kIo, "the file is gone");
  };
  const auto failed = pack(QuantMethod::kCalibrated, failing, "failed");
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().what, testing::HasSubstr("the file is gone"));
  EXPECT_FALSE(is_pack(dir_ / "failed"));
}

INSTANTIATE_TEST_SUITE_P(Formats, CalibratedPackTest,
                         testing::Values(WeightFormat::kW4r, WeightFormat::kCcq2,
                                         WeightFormat::kCcq25, WeightFormat::kCcq275),
                         [](const auto& format) {
                           std::string name(format_name(format.param));
                           std::ranges::replace(name, '.', '_');
                           return name;
                         });

}  // namespace
}  // namespace moesaic
