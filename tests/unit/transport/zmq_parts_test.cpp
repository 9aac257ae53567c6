#include <gtest/gtest.h>

#include "common/transport/frame_window.hpp"
#include "common/transport/stranger_queue.hpp"

namespace moesaic::transport {
namespace {

TEST(FrameWindowTest, IsFullUntilThePeerTellsWhatItHasTaken) {
  FrameWindow sender(4), receiver(4);
  for (int i = 0; i < 8; ++i) {
    ASSERT_FALSE(sender.full()) << i;
    sender.sent();
  }
  EXPECT_TRUE(sender.full());
  EXPECT_FALSE(receiver.due());
  receiver.took();
  ASSERT_EQ(receiver.due(), 1U);
  receiver.told();
  EXPECT_FALSE(receiver.due());
  sender.acknowledged(1);
  EXPECT_FALSE(sender.full());
}

TEST(FrameWindowTest, TellsEightTimesPerWindow) {
  FrameWindow receiver(256);
  int told = 0;
  for (int i = 0; i < 512; ++i) {
    receiver.took();
    if (!receiver.due()) continue;
    receiver.told();
    ++told;
  }
  EXPECT_EQ(told, 8);
}

TEST(FrameWindowTest, NonsenseOpensNothing) {
  FrameWindow sender(1);
  sender.sent();
  sender.sent();
  sender.acknowledged(3);
  EXPECT_TRUE(sender.full());
  sender.acknowledged(~std::uint64_t{0});
  EXPECT_TRUE(sender.full());
  sender.acknowledged(2);
  sender.acknowledged(1);  // an older one
  sender.sent();
  EXPECT_FALSE(sender.full());
}

std::uint64_t nothing(int) { return 0; }

TEST(StrangerQueueTest, WhoHasSaidLeastGoesThoughOthersCameBefore) {
  StrangerQueue queue(2);
  for (const int descriptor : {5, 6, 7}) queue.enter(descriptor);
  EXPECT_EQ(queue.take_surplus([](int descriptor) { return descriptor == 6 ? 64 : 300; }), 6);
}

TEST(StrangerQueueTest, WhoHasBeenThereLongestGoes) {
  StrangerQueue queue(2);
  for (const int descriptor : {5, 6, 7, 8}) queue.enter(descriptor);
  EXPECT_EQ(queue.take_surplus(nothing), 5);
  EXPECT_EQ(queue.take_surplus(nothing), 6);
  EXPECT_FALSE(queue.take_surplus(nothing));
}

TEST(StrangerQueueTest, WhoIsServedOrHasGoneDoesNotCount) {
  StrangerQueue queue(2);
  for (const int descriptor : {5, 6, 7}) queue.enter(descriptor);
  queue.leave(5);
  EXPECT_FALSE(queue.take_surplus(nothing));
  queue.leave(99);
  queue.enter(6);  // the number is used again: the newest now
  queue.enter(8);
  EXPECT_EQ(queue.take_surplus(nothing), 7);
}

}  // namespace
}  // namespace moesaic::transport
