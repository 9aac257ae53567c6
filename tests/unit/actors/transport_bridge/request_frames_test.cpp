#include "actors/transport_bridge/request_frames.hpp"

#include <gmock/gmock.h>

#include "common/transport/bytes.hpp"
#include "common/transport/failure.hpp"

namespace moesaic {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;

const auto kNow = std::chrono::steady_clock::time_point(1000s);

VisualFeaturesPtr features(std::size_t rows, float value) {
  VisualFeatures made;
  made.video = rows == 3;
  made.grid = {1, 2, 4};
  made.rows = rows;
  made.hidden = 4;
  made.values.assign(rows * 4, value);
  made.content_hash = "hash" + std::to_string(rows);
  return std::make_shared<const VisualFeatures>(std::move(made));
}

GenerateRequest request() {
  GenerateRequest made;
  made.id = 77;
  made.prompt = {1, 2, 100000};
  made.generated = {5, 6};
  made.visuals = {features(2, 0.5F), features(3, 0.1F)};
  made.max_tokens = 9;
  made.stop_ids = {2};
  made.sampling = {0.7F, 0.9F, 40, 0.05F, 0xfeedfacecafebeefU, 3};
  made.deadline = kNow + 2s;
  made.request_id = "req-1";
  made.trace.trace_id[0] = 1;
  made.trace.span_id[7] = 2;
  made.trace.sampled = true;
  return made;
}

TEST(RequestFramesTest, SubmissionArrivesAsItWasSent) {
  const auto sent = request();
  const auto got = read_submit(make_submit(sent, kNow), kNow + 10s);
  ASSERT_TRUE(got) << got.error().what;
  EXPECT_EQ(got->id, sent.id);
  EXPECT_EQ(got->prompt, sent.prompt);
  EXPECT_EQ(got->generated, sent.generated);
  EXPECT_EQ(got->stop_ids, sent.stop_ids);
  EXPECT_EQ(got->max_tokens, sent.max_tokens);
  EXPECT_EQ(got->sampling.temperature, 0.7F);
  EXPECT_EQ(got->sampling.top_p, 0.9F);
  EXPECT_EQ(got->sampling.top_k, 40U);
  EXPECT_EQ(got->sampling.min_p, 0.05F);
  EXPECT_EQ(got->sampling.seed, 0xfeedfacecafebeefU);
  EXPECT_EQ(got->sampling.choice, 3U);
  EXPECT_EQ(got->request_id, "req-1");
  EXPECT_EQ(got->trace, sent.trace);
  // Time left counts, not the sender's clock.
  EXPECT_EQ(got->deadline, kNow + 12s);
  ASSERT_EQ(got->visuals.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(got->visuals[i]->values, sent.visuals[i]->values);
    EXPECT_EQ(got->visuals[i]->grid, sent.visuals[i]->grid);
    EXPECT_EQ(got->visuals[i]->video, sent.visuals[i]->video);
    EXPECT_EQ(got->visuals[i]->content_hash, sent.visuals[i]->content_hash);
  }
}

TEST(RequestFramesTest, NoDeadlineStaysNone) {
  auto sent = request();
  sent.deadline = std::chrono::steady_clock::time_point::max();
  const auto got = read_submit(make_submit(sent, kNow), kNow);
  ASSERT_TRUE(got);
  EXPECT_EQ(got->deadline, std::chrono::steady_clock::time_point::max());
}

TEST(RequestFramesTest, ValuesThatFitTravelAsBf16) {
  auto sent = request();
  sent.visuals = {features(2, 0.5F)};
  EXPECT_EQ(make_submit(sent, kNow).tensors[1].dtype, DType::kBf16);
  sent.visuals = {features(2, 0.1F)};
  EXPECT_EQ(make_submit(sent, kNow).tensors[1].dtype, DType::kF32);
}

TEST(RequestFramesTest, MoreValuesNamedThanThereAreIsAnError) {
  auto frame = make_submit(request(), kNow);
  frame.tensors[1] = Tensor(DType::kF32, {7});
  const auto got = read_submit(frame, kNow);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, Errc::kShapeMismatch);
}

TEST(RequestFramesTest, TruncatedMessagesAreErrors) {
  const auto whole = make_submit(request(), kNow);
  for (std::int64_t size = 0; size < whole.tensors[0].shape[0]; ++size) {
    transport::Frame frame;
    frame.type = whole.type;
    frame.tensors.emplace_back(DType::kU8, std::vector<std::int64_t>{size});
    std::copy_n(whole.tensors[0].bytes.data(), size, frame.tensors[0].bytes.data());
    frame.tensors.emplace_back(DType::kF32, std::vector<std::int64_t>{0});
    EXPECT_FALSE(read_submit(frame, kNow)) << size;
  }
}

TEST(RequestFramesTest, TokensArriveWithTheirEndAndError) {
  const TokenEvents sent = {
      {7, {1, 2}, {}, {}},
      {8, {3}, FinishReason::kStop, {}},
      {9, {}, FinishReason::kError, Error{Errc::kExpertUnavailable, "expert shard unavailable"}},
  };
  const auto got = read_tokens(make_tokens(sent));
  ASSERT_TRUE(got);
  ASSERT_EQ(got->size(), 3U);
  EXPECT_THAT((*got)[0].tokens, ElementsAre(1, 2));
  EXPECT_FALSE((*got)[0].finished);
  EXPECT_EQ((*got)[1].finished, FinishReason::kStop);
  EXPECT_EQ((*got)[2].finished, FinishReason::kError);
  ASSERT_TRUE((*got)[2].error);
  EXPECT_EQ((*got)[2].error->code, Errc::kExpertUnavailable);
  EXPECT_EQ((*got)[2].error->what, "expert shard unavailable");
}

TEST(RequestFramesTest, ImageFilesArriveWhole) {
  VisualItem sent{
      true,
      2.5,
      {std::make_shared<const std::string>("first"), std::make_shared<const std::string>(""),
       std::make_shared<const std::string>("\0third", 6)}};
  const auto got = read_encode(make_encode(sent));
  ASSERT_TRUE(got);
  EXPECT_TRUE(got->video);
  EXPECT_EQ(got->fps, 2.5);
  ASSERT_EQ(got->frames.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(*got->frames[i], *sent.frames[i]);
}

TEST(RequestFramesTest, FileLongerThanTheFrameIsAnError) {
  auto frame = make_encode({false, 0, {std::make_shared<const std::string>("0123456789")}});
  frame.tensors[1] = Tensor(DType::kU8, {9});
  EXPECT_FALSE(read_encode(frame));
}

TEST(RequestFramesTest, FeaturesAndFailuresArrive) {
  const auto sent = features(3, 0.25F);
  const auto got = read_features(make_features(*sent));
  ASSERT_TRUE(got);
  EXPECT_EQ(got->values, sent->values);
  EXPECT_EQ(got->rows, 3U);
  const auto error =
      transport::read_failure(transport::make_failure({Errc::kTooLarge, "too big"}, 5));
  EXPECT_EQ(error.code, Errc::kTooLarge);
  EXPECT_EQ(error.what, "too big");
  EXPECT_EQ(*read_cancel(make_cancel(12)), 12U);
}

}  // namespace
}  // namespace moesaic
