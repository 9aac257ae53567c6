#include "common/kernels/router_gate.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tests/support/kernel_values.hpp"

namespace moesaic {
namespace {

using test::all_near;
using test::gaussian;
using test::isa_case;
using test::same_bits;

RouterGate gate_of(std::size_t experts, std::size_t hidden, std::size_t top_k, unsigned seed) {
  const auto weight = gaussian(experts * hidden, seed, 0.05F);
  const auto bias = gaussian(experts, seed + 1, 0.01F);
  return {experts, hidden, top_k, {weight.begin(), weight.end()}, {bias.begin(), bias.end()}};
}

struct Routed {
  std::vector<float> logits, weights;
  std::vector<std::uint32_t> ids;
};

Routed run(RouteFn route, const RouterGate& gate, const std::vector<float>& u) {
  Routed r{std::vector<float>(gate.experts), std::vector<float>(gate.top_k),
           std::vector<std::uint32_t>(gate.top_k)};
  route(gate, u.data(), r.logits.data(), r.ids.data(), r.weights.data());
  return r;
}

class RouterGateTest : public testing::TestWithParam<Isa> {};

TEST_P(RouterGateTest, HasTheBitsOfTheScalarLevel) {
  for (const std::size_t experts : {8UL, 16UL, 48UL, 64UL})
    for (const std::size_t hidden : {32UL, 128UL, 200UL, 2560UL}) {
      const auto gate = gate_of(experts, hidden, std::min<std::size_t>(experts, 6), 1);
      const auto u = gaussian(hidden, 3);
      const auto got = run(route_for(GetParam()), gate, u),
                 want = run(route_for(Isa::kScalar), gate, u);
      EXPECT_TRUE(same_bits(got.logits, want.logits));
      EXPECT_TRUE(same_bits(got.weights, want.weights));
      EXPECT_EQ(got.ids, want.ids);
    }
}

TEST_P(RouterGateTest, IsNearTheReference) {
  const auto gate = gate_of(64, 2560, 6, 4);
  const auto u = gaussian(2560, 5);
  const auto got = run(route_for(GetParam()), gate, u), want = run(route_ref, gate, u);
  EXPECT_TRUE(all_near(got.logits, want.logits, 1e-5F, 1e-5F));
  EXPECT_TRUE(all_near(got.weights, want.weights, 1e-5F, 1e-5F));
  EXPECT_EQ(got.ids, want.ids);
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, RouterGateTest, testing::ValuesIn(available_isas()), isa_case);

TEST(RouterGateTest, TiesGoToTheLowerId) {
  RouterGate gate{8, 4, 3, AlignedVector<float>(32, 0.25F), AlignedVector<float>(8, 0)};
  const auto r = run(route_for(Isa::kScalar), gate, {1, 2, 3, 4});
  EXPECT_EQ(r.ids, (std::vector<std::uint32_t>{0, 1, 2}));
  for (const float w : r.weights) EXPECT_FLOAT_EQ(w, 1.0F / 3);
}

TEST(RouterGateTest, TheBiasMovesTheChoiceButNotTheWeights) {
  // One value decides a logit: expert e has logit ln(e + 1), so p is proportional to e + 1.
  RouterGate gate{4, 1, 2, {}, {0.9F, 0, 0, 0}};
  for (int e = 0; e < 4; ++e) gate.weight.push_back(std::log(static_cast<float>(e + 1)));
  const auto r = run(route_for(Isa::kScalar), gate, {1});
  EXPECT_EQ(r.ids, (std::vector<std::uint32_t>{0, 3}));  // 0.1 + 0.9, then 0.4
  EXPECT_NEAR(r.weights[0], 0.2, 1e-6);                  // 1 / (1 + 4)
  EXPECT_NEAR(r.weights[1], 0.8, 1e-6);
}

TEST(RouterGateTest, RowsTogetherGetTheLogitsOfEachAlone) {
  const auto gate = gate_of(15, 200, 6, 8);
  for (std::size_t rows = 1; rows <= 2 * kRouterRows + 1; ++rows) {
    std::vector<std::vector<float>> u, got(rows, std::vector<float>(gate.experts));
    std::vector<const float*> in;
    std::vector<float*> out;
    for (std::size_t r = 0; r < rows; ++r) u.push_back(gaussian(gate.hidden, r + 1));
    for (std::size_t r = 0; r < rows; ++r) in.push_back(u[r].data()), out.push_back(got[r].data());
    router_logits(gate, in, 0, 4, out);
    router_logits(gate, in, 4, gate.experts, out);
    for (std::size_t r = 0; r < rows; ++r)
      EXPECT_TRUE(same_bits(got[r], run(route_for(active_isa()), gate, u[r]).logits)) << r;
  }
}

TEST(RouterGateTest, WeightsSumToOne) {
  const auto gate = gate_of(64, 128, 6, 8);
  const auto r = run(route_for(active_isa()), gate, gaussian(128, 9));
  EXPECT_NEAR(std::accumulate(r.weights.begin(), r.weights.end(), 0.0F), 1, 1e-6);
}

}  // namespace
}  // namespace moesaic
