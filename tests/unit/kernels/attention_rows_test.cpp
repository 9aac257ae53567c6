#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <vector>

#include "common/base/thread_pool.hpp"
#include "common/kernels/attention.hpp"
#include "common/kernels/cpu/attention_impl.hpp"
#include "common/kernels/rope.hpp"
#include "tests/unit/kernels/attention_fixture.hpp"

// Rows as the projection leaves them: keys and values stored some tokens at a time, queries and
// keys turned on the way. Whatever the way, the bits are those of `rope_text` and of vectors stored
// one by one.
namespace moesaic {
namespace {

using test::gaussian;
using test::isa_case;
using test::same_bits;
using test::Sequence;
using test::shape_of;

/// Angles of `rows` rows, none like another.
struct Angles {
  std::vector<float> cos, sin;

  Angles(std::size_t rows, std::size_t head_dim)
      : cos(rows * head_dim / 2), sin(rows * head_dim / 2) {
    for (std::size_t i = 0; i < cos.size(); ++i)
      sincos_portable(0.37F * static_cast<float>(i), sin[i], cos[i]);
  }
  RopeAngles view() const { return {cos.data(), sin.data()}; }
  void turn(std::vector<float>& x, std::size_t heads, std::size_t head_dim) const {
    const std::size_t half = head_dim / 2;
    for (std::size_t r = 0; r < cos.size() / half; ++r)
      rope_text(x.data() + r * heads * head_dim, heads, head_dim, cos.data() + r * half,
                sin.data() + r * half);
  }
};

class AttentionRowsTest : public testing::TestWithParam<Isa> {
 protected:
  /// The pages of all KV heads after `rows` tokens from `token` on were stored; the rest is 0xff.
  template <class Append>
  static std::vector<std::byte> stored(const AttentionShape& shape, std::size_t token,
                                       const KvRows& rows, Append append) {
    std::vector<std::byte> memory(shape.kv_heads * shape.page_bytes(), std::byte{0xff});
    std::vector<std::byte*> pages(shape.kv_heads);
    for (std::size_t h = 0; h < shape.kv_heads; ++h)
      pages[h] = memory.data() + h * shape.page_bytes();
    append(shape, pages.data(), token, rows);
    return memory;
  }

  /// What `append_kv` of rows does at the level under test.
  static void in_rows(const AttentionShape& shape, std::byte* const* pages, std::size_t token,
                      const KvRows& rows) {
    const attention_detail::PageLayout layout{shape.kv, shape.padded_dim(), kPageTokens};
    attention_detail::store_kv_rows(attention_detail::level_for(GetParam()), layout, pages, token,
                                    rows, shape.kv_heads, shape.head_dim);
  }

  static void one_by_one(const AttentionShape& shape, std::byte* const* pages, std::size_t token,
                         const KvRows& rows) {
    for (std::size_t r = 0; r < rows.rows; ++r)
      for (std::size_t h = 0; h < shape.kv_heads; ++h) {
        const std::size_t at = r * rows.stride + h * shape.head_dim;
        append_kv(shape, pages[h], token + r, rows.k + at, rows.v + at);
      }
  }
};

TEST_P(AttentionRowsTest, AreStoredAsTokensOneByOne) {
  for (const Compute kv : {Compute::kInt, Compute::kBf16, Compute::kF32})
    for (const std::size_t dim : {8, 40, 64, 80, 128, 192})
      for (const std::size_t token : {0, 3, 60})
        for (const std::size_t rows : {1, 4, 61}) {
          if (token + rows > kPageTokens) continue;
          const auto shape = shape_of(kv, 4, 2, dim);
          const std::size_t stride = 2 * shape.kv_heads * dim + 24;
          auto x = gaussian(rows * stride, 5);
          if (rows > 4) x[stride + 1] = std::numeric_limits<float>::infinity();
          const float* v = x.data() + shape.kv_heads * dim;
          const KvRows turned{x.data(), v, stride, rows, {}};
          EXPECT_EQ(stored(shape, token, turned, in_rows), stored(shape, token, turned, one_by_one))
              << static_cast<int>(kv) << " dim " << dim << " token " << token << " rows " << rows;
        }
}

TEST_P(AttentionRowsTest, KeysAreTurnedAsByRopeText) {
  for (const Compute kv : {Compute::kInt, Compute::kBf16, Compute::kF32})
    for (const std::size_t dim : {8, 40, 128}) {
      constexpr std::size_t kRows = 21;
      const auto shape = shape_of(kv, 4, 2, dim);
      const Angles angles(kRows, dim);
      const auto k = gaussian(kRows * 2 * dim, 6), v = gaussian(kRows * 2 * dim, 7);
      auto turned = k;
      angles.turn(turned, 2, dim);
      EXPECT_EQ(stored(shape, 2, {k.data(), v.data(), 2 * dim, kRows, angles.view()}, in_rows),
                stored(shape, 2, {turned.data(), v.data(), 2 * dim, kRows, {}}, one_by_one))
          << static_cast<int>(kv) << " dim " << dim;
    }
}

TEST_P(AttentionRowsTest, QueriesAreTurnedAsByRopeText) {
  for (const Compute kv : {Compute::kInt, Compute::kBf16, Compute::kF32})
    for (const std::size_t dim : {8, 40, 128}) {
      constexpr std::size_t kTokens = 90;
      const Sequence s(shape_of(kv, 6, 2, dim), kTokens, 3);
      const Angles angles(kTokens, dim);
      auto turned = s.q;
      angles.turn(turned, 6, dim);
      std::vector<float> want, got;
      AttentionTask task = s.task(10, 80, want);
      task.q = turned.data() + 10 * s.width();
      attention_for(GetParam())(s.shape, task, 0, 2);
      task = s.task(10, 80, got);
      task.angles = angles.view().from(10, dim);
      attention_for(GetParam())(s.shape, task, 0, 2);
      EXPECT_TRUE(same_bits(got, want)) << static_cast<int>(kv) << " dim " << dim;
    }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, AttentionRowsTest, testing::ValuesIn(available_isas()),
                         isa_case);

TEST(AttentionRowsBatchTest, SegmentsOfThreadsTurnQueriesToo) {
  const Sequence s(shape_of(Compute::kInt, 5, 1, 64), 2500, 4);
  const Angles angles(2500, 64);
  auto turned = s.q;
  angles.turn(turned, 5, 64);
  ThreadPool pool(2);
  std::vector<float> want, got;
  AttentionTask task = s.task(2499, 1, want);
  task.q = turned.data() + 2499 * s.width();
  attention(s.shape, std::span(&task, 1), pool);
  task = s.task(2499, 1, got);
  task.angles = angles.view().from(2499, 64);
  attention(s.shape, std::span(&task, 1), pool);
  EXPECT_TRUE(same_bits(got, want));
}

}  // namespace
}  // namespace moesaic
