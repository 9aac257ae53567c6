#include "common/quantize/ccq_files.hpp"

#include <algorithm>
#include <mutex>
#include <optional>
#include <utility>

#include "common/quantize/ccq_encoder.hpp"
#include "common/quantize/panel_encoder.hpp"
#include "common/quantize/tasks.hpp"

namespace moesaic {
namespace {

/// @param store called as store(n, lanes, lane, group) for each group of each real row
template <class Word, class F>
Result<CcqTensors<Word>> encode(const MatrixView& w, CcqScheme scheme, std::size_t group_words,
                                ThreadPool* pool, F&& store) {
  CcqTensors<Word> out;
  out.k = (w.cols + 63) / 64 * 64;
  out.n = w.rows;
  out.quant_weight.resize(out.k / 64 * group_words * out.n);
  out.super_scales.resize(out.n);
  const PanelRows rows(w, nullptr);
  const CcqEncoder encoder(std::move(scheme), w.cols, out.k / 64, lane_kernels_for(active_isa()));
  std::mutex mutex;
  std::optional<BadRow> first;
  for_each_task(pool, rows.panels() * 2, [&](std::size_t task) {
    PanelRows::HalfPanel half;
    std::size_t bad = 0;
    if (auto error = rows.read_half(task / 2, task % 2, out.k, half, bad)) {
      const std::lock_guard lock(mutex);
      bad += task / 2 * 32;
      if (!first || bad < first->row) first = BadRow{bad, std::move(*error)};
      return;
    }
    const CcqLanes lanes = encoder.encode(half.x);
    for (std::size_t i = 0; i < kLanes && half.exists[i]; ++i) {
      const std::size_t n = task * kLanes + i;
      out.super_scales[n] = f32_to_bf16(times_power(lanes.super[i], half.exponent[i]));
      for (std::size_t g = 0; g < out.k / 64; ++g)
        store(lanes, i, g, out.quant_weight.data() + g * group_words * out.n + n, out.n);
    }
  });
  if (first) return tl::make_unexpected(std::move(first->error));
  return out;
}

}  // namespace

Result<Ccq2Tensors> encode_ccq2(const MatrixView& w, std::span<const CodePair> pairs,
                                ThreadPool* pool) {
  const QuantSpec spec{WeightFormat::kCcq2, QuantMethod::kSearch, pairs};
  MOESAIC_TRY(const PackedMatrix packed, quantize_matrix(w, spec, nullptr, pool));
  return unpack_ccq2(packed);
}

Result<Ccq25Tensors> encode_ccq25(const MatrixView& w, ThreadPool* pool) {
  return encode<std::uint16_t>(
      w, ccq25_scheme(), 10, pool,
      [](const CcqLanes& lanes, std::size_t i, std::size_t g, std::uint16_t* to, std::size_t n) {
        const std::uint16_t* index = lanes.index.data() + g * 19 * kLanes + i;
        const auto at = [&](std::size_t word) { return index[word * kLanes]; };
        for (std::size_t b = 0; b < 9; ++b)
          to[b * n] = static_cast<std::uint16_t>(at(2 * b) << 9 | at(2 * b + 1));
        to[9 * n] = static_cast<std::uint16_t>(at(18) << 13 | lanes.local[g * kLanes + i]);
      });
}

Result<Ccq275Tensors> encode_ccq275(const MatrixView& w, ThreadPool* pool) {
  return encode<std::uint8_t>(
      w, ccq275_scheme(), 22, pool,
      [](const CcqLanes& lanes, std::size_t i, std::size_t g, std::uint8_t* to, std::size_t n) {
        const std::uint16_t* index = lanes.index.data() + g * 22 * kLanes + i;
        for (std::size_t b = 0; b < 21; ++b)
          to[b * n] = static_cast<std::uint8_t>(index[b * kLanes]);
        to[21 * n] =
            static_cast<std::uint8_t>(index[21 * kLanes] << 4 | lanes.local[g * kLanes + i]);
      });
}

}  // namespace moesaic
