#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "common/kernels/elementwise.hpp"
#include "common/kernels/linear.hpp"
#include "common/tensor/bf16.hpp"
#include "tests/unit/kernels/linear_fixture.hpp"

namespace moesaic {
namespace {

/// Weights of one expert.
struct Expert {
  PackedMatrix gate_up, down;

  Expert(std::size_t hidden, std::size_t width, Compute compute, DType type, std::uint32_t seed) {
    const Values gate(width, hidden, seed, false), up(width, hidden, seed + 1, false);
    const Values back(hidden, width, seed + 2, false);
    gate_up = pack_gate_up(gate.view(type, width), up.view(type, width), compute);
    down = pack_matrix(back.view(type, hidden), compute);
  }
};

/// gather, gate/up, down, leaf: one row at a time.
std::vector<float> composed_row(const Expert& e, const Values& x, Compute compute, std::size_t row,
                                const float* weight, Compute form) {
  ThreadPool alone(1);
  const std::size_t width = e.gate_up.rows;
  std::vector<float> h(width), y(e.down.rows);
  const OperandOut out{compute, h.data(), 1, width, width};
  linear_gate_up(e.gate_up, x.operand(compute, row, 1), out, alone);
  linear(e.down, out.view(), y.data(), y.size(), nullptr, alone);
  for (auto& v : y) {
    if (weight != nullptr) v = *weight * v;
    if (form == Compute::kBf16) v = round_to_bf16(v);
  }
  return y;
}

struct Setup {
  const char* name;
  Compute compute;
  DType type;
};

class FfnTest : public testing::TestWithParam<Setup> {};

TEST_P(FfnTest, EqualsAPlainCompositionForAnyThreadsAndLevel) {
  const auto setup = GetParam();
  constexpr std::size_t kHidden = 200, kTokens = 250;
  const Values x(kTokens, kHidden, 21, false);
  // Widths and row counts differ: none of them a multiple of a tile, one of several row blocks.
  const Expert experts[] = {Expert(kHidden, 70, setup.compute, setup.type, 30),
                            Expert(kHidden, 16, setup.compute, setup.type, 40),
                            Expert(kHidden, 128, setup.compute, setup.type, 50),
                            Expert(kHidden, 33, setup.compute, setup.type, 60)};
  const std::vector<std::uint32_t> rows[] = {{7}, {249, 0, 3, 3, 12, 90, 17}, {}, {5, 6}};
  std::vector<std::vector<float>> weights(4);
  for (std::size_t e : {0, 1, 3})
    for (std::size_t i = 0; i < rows[e].size(); ++i)
      weights[e].push_back(0.3f + 0.01f * static_cast<float>(i));

  for (const auto isa : available_isas()) {
    const ForcedIsa forced(isa);
    for (const unsigned threads : {1u, 2u, 3u}) {
      ThreadPool pool(threads);
      FfnScratch scratch;
      for (int repeat = 0; repeat < 2; ++repeat) {  // the second run reuses dirty scratch
        // Of the third task f32, as of a shared FFN.
        const auto form = [&](std::size_t e) { return e == 2 ? Compute::kF32 : setup.compute; };
        std::vector<std::vector<std::vector<float>>> results(4);
        std::vector<std::vector<void*>> out(4);
        std::vector<FfnTask> tasks;
        for (std::size_t e = 0; e < 4; ++e) {
          const std::size_t count = rows[e].empty() ? kTokens : rows[e].size();
          results[e].assign(count, std::vector<float>(kHidden, -1.0f));
          for (auto& row : results[e]) out[e].push_back(row.data());
          tasks.push_back(
              {&experts[e].gate_up, &experts[e].down, rows[e], weights[e], out[e].data(), form(e)});
        }
        ffn(tasks, x.operand(setup.compute, 0, kTokens), scratch, pool);
        for (std::size_t e = 0; e < 4; ++e)
          for (std::size_t i = 0; i < results[e].size(); i += e == 2 ? 31 : 1) {
            const std::size_t row = rows[e].empty() ? i : rows[e][i];
            const auto want = composed_row(experts[e], x, setup.compute, row,
                                           weights[e].empty() ? nullptr : &weights[e][i], form(e));
            std::vector<float> got(kHidden);
            widen(form(e), results[e][i].data(), kHidden, got.data());
            ASSERT_EQ(std::memcmp(want.data(), got.data(), kHidden * sizeof(float)), 0)
                << isa_name(isa) << " threads " << threads << " expert " << e << " entry " << i;
          }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, FfnTest,
                         testing::Values(Setup{"Bf16", Compute::kBf16, DType::kBf16},
                                         Setup{"F32", Compute::kF32, DType::kF32},
                                         Setup{"F32WithBf16Weights", Compute::kF32, DType::kBf16}),
                         [](const auto& setup) { return std::string(setup.param.name); });

TEST(FfnScratchTest, IsNotGrownByASmallerBatch) {
  const Expert expert(64, 32, Compute::kBf16, DType::kBf16, 70);
  const Values x(40, 64, 71, false);
  ThreadPool pool(2);
  FfnScratch scratch;
  std::vector<std::vector<float>> results(40, std::vector<float>(64));
  std::vector<void*> out;
  for (auto& row : results) out.push_back(row.data());
  const FfnTask task{&expert.gate_up, &expert.down, {}, {}, out.data(), Compute::kF32};
  ffn({&task, 1}, x.operand(Compute::kBf16, 0, 40), scratch, pool);
  const auto* before = scratch.rows.data();
  ffn({&task, 1}, x.operand(Compute::kBf16, 0, 3), scratch, pool);
  EXPECT_EQ(scratch.rows.data(), before);
}

}  // namespace
}  // namespace moesaic
