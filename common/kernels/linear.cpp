#include "common/kernels/linear.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <vector>

#include "common/kernels/cpu/linear_level.hpp"
#include "common/kernels/cpu/unit_grid.hpp"
#include "common/kernels/integer_weight.hpp"
#include "common/tensor/bf16.hpp"

namespace moesaic {
namespace {

using cpu::LinearLevel;
using cpu::PanelJob;
using cpu::PanelSink;
using cpu::RowLayout;
using cpu::SumRows;

/// Prepared rows of one call stay below this; larger batches go in chunks of rows.
constexpr std::size_t kChunkBytes = std::size_t{16} << 20;
/// Below this many values the caller prepares all rows itself.
constexpr std::size_t kPrepareAlone = 32768;

/// True if so many results are best stored past the caches, and can be.
bool past_caches(const void* y, std::size_t row_bytes, std::size_t rows) {
  return rows * row_bytes > cpu::kStreamBytes && cpu::whole_lines(y, row_bytes);
}

/// y = sums (+ bias), to which `add` adds what y was.
class StoreSink final : public PanelSink {
 public:
  /// @param rows of y in all
  StoreSink(const LinearLevel& level, const PackedMatrix& w, float* y, std::size_t ldy,
            const float* bias, bool add, std::size_t rows)
      : level_(level),
        outputs_(w.rows),
        y_(y),
        ldy_(ldy),
        bias_(bias),
        add_(add),
        stream_(!add && past_caches(y, ldy * sizeof(float), rows)) {}

  cpu::Epilogue epilogue() const override {
    return {.kind = add_ ? cpu::Epilogue::Kind::kAdd : cpu::Epilogue::Kind::kStore,
            .out = y_,
            .ld = ldy_,
            .bias = bias_,
            .stream = stream_};
  }
  void take(std::size_t panel, std::size_t first_row, std::size_t rows, const float* c,
            std::size_t ldc) const override {
    const std::size_t n = panel * 32;
    const SumRows sums{c, ldc, rows, std::min<std::size_t>(32, outputs_ - n),
                       bias_ != nullptr ? bias_ + n : nullptr};
    level_.store(sums, add_, y_ + first_row * ldy_ + n, ldy_);
  }

 private:
  const LinearLevel& level_;
  std::size_t outputs_;
  float* y_;
  std::size_t ldy_;
  const float* bias_;
  bool add_;
  bool stream_;
};

/// y = activation(sums + bias).
class ActivateSink final : public PanelSink {
 public:
  ActivateSink(const LinearLevel& level, const PackedMatrix& w, const float* bias,
               Activation activation, const OperandOut& y, std::size_t base_row)
      : level_(level),
        outputs_(w.rows),
        bias_(bias),
        activation_(activation),
        y_(y),
        base_row_(base_row),
        stream_(past_caches(y.data, y.stride * operand_bytes(y.compute), y.rows)) {}

  cpu::Epilogue epilogue() const override {
    if (activation_ != Activation::kQuickGelu || y_.compute != Compute::kBf16) return {};
    return {.kind = cpu::Epilogue::Kind::kQuickGelu,
            .out_bf16 = y_.bf16(base_row_),
            .ld = y_.stride,
            .bias = bias_,
            .stream = stream_};
  }
  void take(std::size_t panel, std::size_t first_row, std::size_t rows, const float* c,
            std::size_t ldc) const override {
    const std::size_t n = panel * 32, row = base_row_ + first_row;
    const SumRows sums{c, ldc, rows, std::min<std::size_t>(32, outputs_ - n),
                       bias_ != nullptr ? bias_ + n : nullptr};
    const bool bf16 = y_.compute == Compute::kBf16;
    level_.activate(sums, activation_, bf16 ? nullptr : y_.f32(row) + n,
                    bf16 ? y_.bf16(row) + n : nullptr, y_.stride);
  }

 private:
  const LinearLevel& level_;
  std::size_t outputs_;
  const float* bias_;
  Activation activation_;
  OperandOut y_;
  std::size_t base_row_;
  bool stream_;
};

/// h = silu(gate) * up.
class GateUpSink final : public PanelSink {
 public:
  GateUpSink(const LinearLevel& level, const PackedMatrix& w, const OperandOut& h,
             std::size_t base_row)
      : level_(level), width_(w.rows), panels_(w.panels()), h_(h), base_row_(base_row) {}

  void take(std::size_t panel, std::size_t first_row, std::size_t rows, const float* c,
            std::size_t ldc) const override {
    const std::size_t n = panel * 16;
    const std::size_t count = std::min<std::size_t>(16, width_ - n);
    const std::size_t end = panel + 1 == panels_ ? h_.cols : n + count;
    for (std::size_t r = 0; r < rows; ++r, c += ldc) {
      alignas(64) float h[16];
      level_.silu_mul(c, c + 16, h_.compute == Compute::kBf16, h);
      const std::size_t row = base_row_ + first_row + r;
      if (h_.compute == Compute::kF32) {
        float* out = h_.f32(row);
        std::copy(h, h + count, out + n);
        std::fill(out + n + count, out + end, 0.0f);
      } else {
        Bf16* out = h_.bf16(row);
        std::transform(h, h + count, out + n, cpu::bf16_bits);
        std::fill(out + n + count, out + end, Bf16{0});
      }
    }
  }

 private:
  const LinearLevel& level_;
  std::size_t width_, panels_;
  OperandOut h_;
  std::size_t base_row_;
};

/// Memory for prepared rows, kept by the calling thread from call to call.
std::byte* prepared_memory(std::size_t bytes) {
  thread_local AlignedBuffer buffer;
  buffer.reserve(bytes);
  return buffer.data();
}

void prepare(const RowLayout& layout, const Operand& x, std::byte* data, ThreadPool& pool) {
  const std::size_t values = layout.rows * layout.padded_cols;
  const std::size_t parts =
      values <= kPrepareAlone ? 1 : std::min<std::size_t>(layout.groups, pool.size() * 4);
  pool.parallel_for(parts, [&](std::size_t i) {
    cpu::prepare_rows(layout, x, nullptr, i * layout.groups / parts,
                      (i + 1) * layout.groups / parts, data);
  });
}

/// Runs a product over the pool, chunk by chunk of rows; make_sink(first row) gives where a chunk's
/// sums go.
template <class MakeSink>
void run_product(const LinearLevel& level, const PackedMatrix& w, const Operand& x,
                 ThreadPool& pool, MakeSink make_sink) {
  assert(x.cols == w.cols && w.rows > 0);
  const auto sum = cpu::sum_of(w, x.compute);
  const std::size_t most =
      std::max(kChunkBytes / (w.padded_cols() * sizeof(float)), cpu::kBlockRows);
  const std::size_t chunks = (x.rows + most - 1) / most;
  for (std::size_t c = 0; c < chunks; ++c) {
    const std::size_t first = c * x.rows / chunks;
    auto part = cpu::rows_from(x, first);
    part.rows = (c + 1) * x.rows / chunks - first;
    const RowLayout layout = level.layout(w, sum, part.rows);
    std::byte* data = prepared_memory(layout.bytes());
    prepare(layout, part, data, pool);

    const auto sink = make_sink(first);
    const auto grid = cpu::make_grid(
        layout, w.panels(), w.cols,
        cpu::unit_cost_for(cpu::product_cost(part.rows, w.panels(), w.cols), pool.size()));
    pool.parallel_for(grid.units(), [&](std::size_t unit) {
      PanelJob job{.w = &w,
                   .level = &level,
                   .tiles = level.tiles(sum),
                   .layout = &layout,
                   .x = data,
                   .sink = &sink};
      grid.select(unit, layout, w.panels(), job);
      cpu::run_panels(job);
    });
  }
}

template <Isa isa>
void linear_at(const PackedMatrix& w, const Operand& x, float* y, std::size_t ldy,
               const float* bias, std::size_t first_panel, std::size_t last_panel) {
  assert(x.cols == w.cols);
  const auto& level = cpu::linear_level(isa);
  const auto sum = cpu::sum_of(w, x.compute);
  const RowLayout layout = level.layout(w, sum, x.rows);
  std::byte* data = prepared_memory(layout.bytes());
  cpu::prepare_rows(layout, x, nullptr, 0, layout.groups, data);
  const StoreSink sink(level, w, y, ldy, bias, false, x.rows);
  cpu::run_panels({.w = &w,
                   .level = &level,
                   .tiles = level.tiles(sum),
                   .layout = &layout,
                   .x = data,
                   .first_group = 0,
                   .last_group = layout.groups,
                   .first_panel = first_panel,
                   .last_panel = last_panel,
                   .sink = &sink});
}

}  // namespace

void linear(const PackedMatrix& w, const Operand& x, float* y, std::size_t ldy, const float* bias,
            ThreadPool& pool) {
  assert(!w.gate_up && ldy >= w.rows);
  const auto& level = cpu::linear_level(active_isa());
  run_product(level, w, x, pool, [&](std::size_t first_row) {
    return StoreSink(level, w, y + first_row * ldy, ldy, bias, false, x.rows);
  });
}

void linear_add(const PackedMatrix& w, const Operand& x, float* y, std::size_t ldy,
                const float* bias, ThreadPool& pool) {
  assert(!w.gate_up && ldy >= w.rows);
  const auto& level = cpu::linear_level(active_isa());
  run_product(level, w, x, pool, [&](std::size_t first_row) {
    return StoreSink(level, w, y + first_row * ldy, ldy, bias, true, x.rows);
  });
}

void linear_activated(const PackedMatrix& w, const Operand& x, const float* bias,
                      Activation activation, const OperandOut& y, ThreadPool& pool) {
  assert(!w.gate_up && y.cols >= w.rows && y.rows >= x.rows);
  const auto& level = cpu::linear_level(active_isa());
  run_product(level, w, x, pool, [&](std::size_t first_row) {
    return ActivateSink(level, w, bias, activation, y, first_row);
  });
}

void linear_gate_up(const PackedMatrix& w, const Operand& x, const OperandOut& h,
                    ThreadPool& pool) {
  assert(w.gate_up && h.cols >= w.rows && h.rows >= x.rows);
  const auto& level = cpu::linear_level(active_isa());
  run_product(level, w, x, pool,
              [&](std::size_t first_row) { return GateUpSink(level, w, h, first_row); });
}

LinearFn linear_for(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return linear_at<Isa::kAvx2>;
    case Isa::kAvx512:
      return linear_at<Isa::kAvx512>;
    case Isa::kAvx512Bf16:
      return linear_at<Isa::kAvx512Bf16>;
    case Isa::kAmx:
      return linear_at<Isa::kAmx>;
    case Isa::kScalar:
      break;
  }
  return linear_at<Isa::kScalar>;
}

namespace {

double value_of(const Operand& x, std::size_t row, std::size_t k) {
  switch (x.compute) {
    case Compute::kF32:
      return x.f32(row)[k];
    case Compute::kBf16:
      return bf16_to_f32(x.bf16(row)[k]);
    case Compute::kInt:
      break;
  }
  return double{x.scales[row * (x.stride / x.block) + k / x.block]} * x.int8(row)[k];
}

/// Row n of the weights, not rounded.
void exact_row(const PackedMatrix& w, std::size_t n, std::vector<float>& out) {
  if (!is_integer(w.format)) return unpack_row(w, n, out.data());
  for (std::size_t k = 0; k < w.cols; ++k)
    out[k] =
        static_cast<float>(integer_weight(w, n / 32, n % 32, k)) * row_scale(w, n / 32, n % 32);
}

}  // namespace

void linear_ref(const PackedMatrix& w, const Operand& x, float* y, std::size_t ldy,
                const float* bias) {
  std::vector<float> weights(w.cols);
  for (std::size_t n = 0; n < w.rows; ++n) {
    exact_row(w, n, weights);
    for (std::size_t m = 0; m < x.rows; ++m) {
      double sum = 0;
      for (std::size_t k = 0; k < w.cols; ++k) {
        sum += value_of(x, m, k) * weights[k];
      }
      y[m * ldy + n] = static_cast<float>(sum + (bias != nullptr ? bias[n] : 0.0f));
    }
  }
}

}  // namespace moesaic
