#include <algorithm>
#include <cassert>
#include <cstdint>
#include <new>
#include <span>
#include <type_traits>

#include "common/kernels/cpu/linear_level.hpp"
#include "common/kernels/cpu/unit_grid.hpp"
#include "common/kernels/linear.hpp"
#include "common/tensor/bf16.hpp"

namespace moesaic {
namespace {

using cpu::LinearLevel;
using cpu::PanelJob;
using cpu::PanelSink;
using cpu::RowLayout;
using cpu::Sum;
using cpu::UnitGrid;

/// Below this many values the caller prepares all rows itself.
constexpr std::size_t kPrepareAlone = 32768;

/// One of the two products of a task.
struct Product {
  const PackedMatrix* w = nullptr;
  Sum sum = Sum::kBf16;
  RowLayout layout;
  std::size_t offset = 0;  ///< of the prepared operand rows in their scratch
  UnitGrid grid;
};

struct TaskPlan {
  Product gate_up, down;
  /// Of an integer `down`: silu(gate) * up in f32, [rows][padded width], waiting to be quantised.
  float* wide = nullptr;
};

/// Columns of silu(gate) * up that wait to be quantised, where a worker runs whole row blocks; a
/// multiple of every activation block.
constexpr std::size_t kWideCols = 512;
/// Row blocks are run whole if there are so many for each worker, and so many rows for each task.
constexpr std::size_t kBlocksPerWorker = 4;
constexpr std::size_t kRowsPerTask = 16;

/// Most bytes of a row block's operands, so that they stay in L2 beside the weights.
constexpr std::size_t kBlockBytes = std::size_t{1} << 20;

/// Rows [first, last) of a task.
struct RowBlock {
  std::size_t cost = 0;
  std::uint32_t task = 0;
  std::uint32_t first = 0, last = 0;
};

/// One unit of one task's product.
struct Unit {
  std::size_t cost = 0;
  std::uint32_t task = 0;
  std::uint32_t index = 0;
};

/// silu(gate) * up into the prepared operand of `down`.
class HiddenSink final : public PanelSink {
 public:
  HiddenSink(const LinearLevel& level, const TaskPlan& plan, Compute compute, std::byte* hidden)
      : level_(level),
        plan_(plan),
        round_(compute != Compute::kF32),
        hidden_(hidden + plan.down.offset) {}

  cpu::Epilogue epilogue() const override {
    if (plan_.wide == nullptr) return {};
    return {.kind = cpu::Epilogue::Kind::kSiluMul,
            .out = plan_.wide,
            .ld = plan_.down.layout.padded_cols};
  }
  void take(std::size_t panel, std::size_t first_row, std::size_t rows, const float* c,
            std::size_t ldc) const override {
    const auto& layout = plan_.down.layout;
    const std::size_t width = plan_.gate_up.w->rows;
    const std::size_t n = panel * 16;
    if (plan_.wide != nullptr) {
      // The padded width is a multiple of 64, so whole panels fit.
      float* out = plan_.wide + first_row * layout.padded_cols + n;
      for (std::size_t r = 0; r < rows; ++r, c += ldc, out += layout.padded_cols)
        level_.silu_mul(c, c + 16, false, out);
      return;
    }
    const std::size_t count = std::min<std::size_t>(16, width - n);
    const bool last = panel + 1 == plan_.gate_up.w->panels();
    for (std::size_t r = first_row; r < first_row + rows; ++r, c += ldc) {
      alignas(64) float h[16];
      level_.silu_mul(c, c + 16, round_, h);
      cpu::store_prepared(layout, r, n, count, h, hidden_);
      if (last) {
        static constexpr float kZeros[64] = {};
        cpu::store_prepared(layout, r, width, layout.padded_cols - width, kZeros, hidden_);
      }
    }
  }

 private:
  const LinearLevel& level_;
  const TaskPlan& plan_;
  bool round_;
  std::byte* hidden_;
};

/// Results to where the task wants them.
class LeafSink final : public PanelSink {
 public:
  LeafSink(const LinearLevel& level, const FfnTask& task, bool stream)
      : level_(level), task_(task), stream_(stream) {}

  cpu::Epilogue epilogue() const override {
    return {.kind = bf16() ? cpu::Epilogue::Kind::kLeaves : cpu::Epilogue::Kind::kRows,
            .rows = task_.out,
            .weights = task_.weights.empty() ? nullptr : task_.weights.data(),
            .stream = stream_};
  }
  void take(std::size_t panel, std::size_t first_row, std::size_t rows, const float* c,
            std::size_t ldc) const override {
    const std::size_t n = panel * 32;
    const std::size_t count = std::min<std::size_t>(32, task_.down->rows - n);
    for (std::size_t r = first_row; r < first_row + rows; ++r, c += ldc) {
      const float weight = task_.weights.empty() ? 1.0F : task_.weights[r];
      if (bf16())
        finish<Bf16>(c, weight, count, static_cast<Bf16*>(task_.out[r]) + n);
      else
        finish<float>(c, weight, count, static_cast<float*>(task_.out[r]) + n);
    }
  }

 private:
  bool bf16() const { return task_.form == Compute::kBf16; }

  template <class T>
  void finish(const float* c, float weight, std::size_t count, T* out) const {
    T y[32];
    T* const to = count == 32 ? out : y;
    if constexpr (std::is_same_v<T, Bf16>)
      level_.leaves(c, weight, nullptr, to);
    else
      level_.leaves(c, weight, to, nullptr);
    if (to == y) std::copy(y, y + count, out);
  }

  const LinearLevel& level_;
  const FfnTask& task_;
  bool stream_;
};

/// silu(gate) * up of some panels in f32.
class WideSink final : public PanelSink {
 public:
  WideSink(const LinearLevel& level, float* wide) : level_(level), wide_(wide) {}

  cpu::Epilogue epilogue() const override {
    return {.kind = cpu::Epilogue::Kind::kSiluMul, .out = wide_, .ld = kWideCols};
  }
  void take(std::size_t panel, std::size_t first_row, std::size_t rows, const float* c,
            std::size_t ldc) const override {
    float* out = wide_ + first_row * kWideCols + panel * 16;
    for (std::size_t r = 0; r < rows; ++r, c += ldc, out += kWideCols)
      level_.silu_mul(c, c + 16, false, out);
  }

 private:
  const LinearLevel& level_;
  float* wide_;
};

bool is_integer_ffn(const FfnTask& task) {
  return is_integer(task.gate_up->format) && is_integer(task.down->format);
}

/// Large batches of integer weights: a worker takes some rows of a task through both products, so
/// that all between them stays in its L2.
class WholeBlocks {
 public:
  WholeBlocks(std::span<const FfnTask> tasks, const Operand& x, FfnScratch& scratch,
              ThreadPool& pool)
      : tasks_(tasks),
        x_(x),
        level_(cpu::linear_level(active_isa())),
        scratch_(scratch),
        pool_(pool) {}

  /// True if the batch is run.
  bool run() {
    std::size_t blocks = 0, rows = 0;
    for (const auto& task : tasks_) {
      if (!is_integer_ffn(task)) return false;
      rows += rows_of(task);
      blocks += blocks_of(task);
    }
    if (blocks < kBlocksPerWorker * pool_.size() || rows < kRowsPerTask * tasks_.size())
      return false;
    stream_ = past_caches();
    scratch_.plan.reserve(blocks * sizeof(RowBlock));
    auto* const first = reinterpret_cast<RowBlock*>(scratch_.plan.data());
    auto* end = first;
    for (std::size_t t = 0; t < tasks_.size(); ++t) {
      const auto& task = tasks_[t];
      const std::size_t n = rows_of(task), parts = blocks_of(task);
      for (std::size_t i = 0; i < parts; ++i) {
        const std::size_t from = i * n / parts, to = (i + 1) * n / parts;
        new (end++)
            RowBlock{cpu::product_cost(to - from, 3 * task.gate_up->panels(), task.gate_up->cols),
                     static_cast<std::uint32_t>(t), static_cast<std::uint32_t>(from),
                     static_cast<std::uint32_t>(to)};
      }
    }
    std::sort(first, end, [](const RowBlock& a, const RowBlock& b) {
      if (a.cost != b.cost) return a.cost > b.cost;
      return a.task != b.task ? a.task < b.task : a.first < b.first;
    });
    pool_.parallel_for(static_cast<std::size_t>(end - first),
                       [&](std::size_t i) { run_block(first[i]); });
    return true;
  }

 private:
  std::size_t rows_of(const FfnTask& task) const {
    return task.rows.empty() ? x_.rows : task.rows.size();
  }

  /// All results are large f32 rows that begin on cache lines. (Leaves of the expert tree are half
  /// as large, lie scattered, and are read again at once: they are better off in a shared cache.)
  bool past_caches() const {
    std::size_t bytes = 0;
    for (const auto& task : tasks_) {
      const std::size_t row_bytes = task.down->rows * sizeof(float);
      for (std::size_t i = 0; i < rows_of(task); ++i)
        if (task.form != Compute::kF32 || !cpu::whole_lines(task.out[i], row_bytes)) return false;
      bytes += rows_of(task) * row_bytes;
    }
    return bytes > cpu::kStreamBytes;
  }

  std::size_t blocks_of(const FfnTask& task) const {
    const std::size_t widest = std::max(task.gate_up->padded_cols(), task.down->padded_cols());
    const std::size_t most =
        std::clamp(kBlockBytes / widest, 4 * RowLayout::kTileRows, cpu::kIntegerBlockRows);
    return (rows_of(task) + most - 1) / most;
  }

  void run_panels(const PackedMatrix& w, const RowLayout& layout, const std::byte* x,
                  const PanelSink& sink) const {
    cpu::run_panels({.w = &w,
                     .level = &level_,
                     .tiles = nullptr,
                     .layout = &layout,
                     .x = x,
                     .first_group = 0,
                     .last_group = layout.groups,
                     .first_panel = 0,
                     .last_panel = w.panels(),
                     .sink = &sink});
  }

  void run_block(const RowBlock& block) const {
    FfnTask task = tasks_[block.task];
    const std::size_t rows = block.last - block.first;
    Operand x = x_;
    if (task.rows.empty()) {
      x = cpu::rows_from(x_, block.first);
    } else {
      task.rows = task.rows.subspan(block.first, rows);
    }
    if (!task.weights.empty()) task.weights = task.weights.subspan(block.first, rows);
    task.out += block.first;

    const auto& down = *task.down;
    const auto layout = level_.layout(*task.gate_up, Sum::kInteger, rows);
    const auto hidden_layout = level_.layout(down, Sum::kInteger, rows);
    // Kept by each worker from call to call.
    thread_local AlignedBuffer x_memory, wide_memory, hidden_memory;
    x_memory.reserve(layout.bytes());
    hidden_memory.reserve(hidden_layout.bytes());
    wide_memory.reserve(rows * kWideCols * sizeof(float));
    cpu::prepare_rows(layout, x, task.rows.empty() ? nullptr : task.rows.data(), 0, layout.groups,
                      x_memory.data());
    float* const wide = wide_memory.as<float>().data();
    const WideSink sink(level_, wide);
    for (std::size_t first = 0; first < hidden_layout.padded_cols; first += kWideCols) {
      PackedMatrix part = *task.gate_up;
      const std::size_t real = std::min(kWideCols, part.rows - std::min(part.rows, first));
      part.data += first / 16 * part.panel_bytes();
      part.rows = real;
      if (real > 0) run_panels(part, layout, x_memory.data(), sink);
      for (std::size_t k = first; k < std::min(first + kWideCols, hidden_layout.padded_cols);
           k += hidden_layout.block) {
        const std::size_t cols = std::min(hidden_layout.block, down.cols - std::min(down.cols, k));
        cpu::prepare_block(hidden_layout, k / hidden_layout.block, wide + (k - first), kWideCols,
                           cols, hidden_memory.data());
      }
    }
    run_panels(down, hidden_layout, hidden_memory.data(), LeafSink(level_, task, stream_));
  }

  std::span<const FfnTask> tasks_;
  const Operand& x_;
  const LinearLevel& level_;
  FfnScratch& scratch_;
  ThreadPool& pool_;
  bool stream_ = false;  ///< of results
};

/// All of one call: where things lie in the scratch.
class FfnRun {
 public:
  FfnRun(std::span<const FfnTask> tasks, const Operand& x, FfnScratch& scratch, ThreadPool& pool)
      : tasks_(tasks), x_(x), level_(cpu::linear_level(active_isa())), pool_(pool) {
    scratch.plan.reserve(tasks.size() * sizeof(TaskPlan) + most_units() * sizeof(Unit));
    plans_ = reinterpret_cast<TaskPlan*>(scratch.plan.data());
    units_ = reinterpret_cast<Unit*>(plans_ + tasks.size());
    std::size_t x_bytes = 0, h_bytes = 0, wide_bytes = 0;
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      const auto& task = tasks[t];
      const std::size_t rows = rows_of(task);
      assert(task.gate_up->gate_up && !task.down->gate_up);
      assert(task.gate_up->cols == x.cols && task.down->cols == task.gate_up->rows);
      assert(task.weights.empty() || task.weights.size() == rows);
      const auto hidden = x.compute == Compute::kF32 ? Compute::kF32 : Compute::kBf16;
      auto* plan = new (plans_ + t) TaskPlan{product(task.gate_up, x.compute, rows),
                                             product(task.down, hidden, rows), nullptr};
      plan->gate_up.offset = x_bytes;
      plan->down.offset = h_bytes;
      x_bytes += aligned(plan->gate_up.layout.bytes());
      h_bytes += aligned(plan->down.layout.bytes());
      if (plan->down.sum == Sum::kInteger)
        wide_bytes += aligned(rows * plan->down.layout.padded_cols * sizeof(float));
      wide_values_ = wide_bytes / sizeof(float);
    }
    scratch.rows.reserve(x_bytes);
    scratch.hidden.reserve(h_bytes);
    scratch.wide.reserve(wide_bytes);
    auto* wide = scratch.wide.as<float>().data();
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      auto& plan = plans_[t];
      if (plan.down.sum != Sum::kInteger) continue;
      plan.wide = wide;
      wide += aligned(plan.down.layout.rows * plan.down.layout.padded_cols * sizeof(float)) /
              sizeof(float);
    }
    rows_ = scratch.rows.data();
    hidden_ = scratch.hidden.data();
    values_ = x_bytes / sizeof(Bf16);
  }

  void run() {
    prepare();
    run_product(&TaskPlan::gate_up, rows_, [this](std::size_t t) {
      return HiddenSink(level_, plans_[t], x_.compute, hidden_);
    });
    if (wide_values_ > 0) quantize_hidden();
    run_product(&TaskPlan::down, hidden_,
                [this](std::size_t t) { return LeafSink(level_, tasks_[t], false); });
  }

 private:
  static std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

  std::size_t rows_of(const FfnTask& task) const {
    return task.rows.empty() ? x_.rows : task.rows.size();
  }

  /// Units if every panel of every row block were one.
  std::size_t most_units() const {
    std::size_t units = 0;
    for (const auto& task : tasks_)
      units += cpu::most_row_blocks(rows_of(task)) *
               std::max(task.gate_up->panels(), task.down->panels());
    return units;
  }

  Product product(const PackedMatrix* w, Compute form, std::size_t rows) const {
    const auto sum = cpu::sum_of(*w, form);
    return {.w = w, .sum = sum, .layout = level_.layout(*w, sum, rows), .offset = 0, .grid = {}};
  }

  void prepare_task(std::size_t t, std::size_t first_group, std::size_t last_group) {
    const auto& product = plans_[t].gate_up;
    const auto& rows = tasks_[t].rows;
    cpu::prepare_rows(product.layout, x_, rows.empty() ? nullptr : rows.data(), first_group,
                      last_group, rows_ + product.offset);
  }

  void prepare() {
    const std::size_t parts = values_ <= kPrepareAlone ? 1 : pool_.size() * 2;
    // Part p takes the p-th share of every task's groups.
    pool_.parallel_for(parts, [&](std::size_t p) {
      for (std::size_t t = 0; t < tasks_.size(); ++t) {
        const std::size_t groups = plans_[t].gate_up.layout.groups;
        prepare_task(t, p * groups / parts, (p + 1) * groups / parts);
      }
    });
  }

  /// silu(gate) * up of the tasks with an integer `down` becomes its operand.
  void quantize_hidden() {
    const std::size_t parts = wide_values_ <= kPrepareAlone ? 1 : pool_.size() * 2;
    pool_.parallel_for(parts, [&](std::size_t p) {
      for (std::size_t t = 0; t < tasks_.size(); ++t) {
        const auto& plan = plans_[t];
        if (plan.wide == nullptr) continue;
        const auto& layout = plan.down.layout;
        const Operand wide{Compute::kF32, plan.wide, layout.rows, plan.down.w->cols,
                           layout.padded_cols};
        cpu::prepare_rows(layout, wide, nullptr, p * layout.groups / parts,
                          (p + 1) * layout.groups / parts, hidden_ + plan.down.offset);
      }
    });
  }

  template <class MakeSink>
  void run_product(Product TaskPlan::*which, const std::byte* operand, MakeSink make_sink) {
    std::size_t total = 0;
    for (std::size_t t = 0; t < tasks_.size(); ++t) {
      const auto& p = plans_[t].*which;
      total += cpu::product_cost(p.layout.rows, p.w->panels(), p.w->cols);
    }
    const std::size_t target = cpu::unit_cost_for(total, pool_.size());
    auto* end = units_;
    for (std::size_t t = 0; t < tasks_.size(); ++t) {
      auto& p = plans_[t].*which;
      p.grid = cpu::make_grid(p.layout, p.w->panels(), p.w->cols, target);
      for (std::size_t i = 0; i < p.grid.units(); ++i) {
        const std::size_t panels = p.grid.panels_of(i, p.w->panels());
        if (panels == 0) continue;
        new (end++) Unit{panels * p.grid.panel_cost, static_cast<std::uint32_t>(t),
                         static_cast<std::uint32_t>(i)};
      }
    }
    // Largest first; among equals in the order the weights lie in.
    std::sort(units_, end, [](const Unit& a, const Unit& b) {
      if (a.cost != b.cost) return a.cost > b.cost;
      return a.task != b.task ? a.task < b.task : a.index < b.index;
    });
    pool_.parallel_for(static_cast<std::size_t>(end - units_), [&](std::size_t i) {
      const auto& unit = units_[i];
      const auto& p = plans_[unit.task].*which;
      const auto sink = make_sink(unit.task);
      PanelJob job{.w = p.w,
                   .level = &level_,
                   .tiles = level_.tiles(p.sum),
                   .layout = &p.layout,
                   .x = operand + p.offset,
                   .sink = &sink};
      p.grid.select(unit.index, p.layout, p.w->panels(), job);
      cpu::run_panels(job);
    });
  }

  std::span<const FfnTask> tasks_;
  const Operand& x_;
  const LinearLevel& level_;
  ThreadPool& pool_;
  TaskPlan* plans_ = nullptr;
  Unit* units_ = nullptr;
  std::byte* rows_ = nullptr;
  std::byte* hidden_ = nullptr;
  std::size_t values_ = 0;
  std::size_t wide_values_ = 0;
};

}  // namespace

void ffn(std::span<const FfnTask> tasks, const Operand& x, FfnScratch& scratch, ThreadPool& pool) {
  if (tasks.empty() || x.rows == 0) return;
  if (WholeBlocks(tasks, x, scratch, pool).run()) return;
  FfnRun(tasks, x, scratch, pool).run();
}

}  // namespace moesaic
