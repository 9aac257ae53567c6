#pragma once

#include <algorithm>
#include <cstddef>

#include "common/kernels/cpu/linear_level.hpp"

namespace moesaic::cpu {

/// A product cut into units of work: row blocks x panel groups, never along K. Units of one row
/// block follow each other in panel order, large ones first and small ones last, so that workers
/// end together.
struct UnitGrid {
  std::size_t row_blocks = 0;
  std::size_t panel_groups = 0;
  std::size_t panel_cost = 0;  ///< of one panel of a row block, in row x k steps

  std::size_t units() const { return row_blocks * panel_groups; }

  /// First panel of a group; of group `panel_groups` the number of panels.
  std::size_t first_panel(std::size_t group, std::size_t panels) const {
    const std::size_t left = panel_groups - group;
    return panels - panels * left * left / (panel_groups * panel_groups);
  }
  std::size_t panels_of(std::size_t index, std::size_t panels) const {
    const std::size_t group = index % panel_groups;
    return first_panel(group + 1, panels) - first_panel(group, panels);
  }

  /// Sets the rectangle of a job to unit `index`.
  void select(std::size_t index, const RowLayout& layout, std::size_t panels, PanelJob& job) const {
    const std::size_t block = index / panel_groups, group = index % panel_groups;
    job.first_group = block * layout.groups / row_blocks;
    job.last_group = (block + 1) * layout.groups / row_blocks;
    job.first_panel = first_panel(group, panels);
    job.last_panel = first_panel(group + 1, panels);
  }
};

/// A panel costs at least as much as its bytes take from memory: about this many rows.
inline constexpr std::size_t kMemoryRows = 6;
/// Units smaller than this (a few microseconds) are not worth handing out.
inline constexpr std::size_t kLeastUnitCost = 16000;
inline constexpr std::size_t kUnitsPerWorker = 8;

inline std::size_t product_cost(std::size_t rows, std::size_t panels, std::size_t cols) {
  return std::max(rows, kMemoryRows) * panels * cols;
}

/// Mean cost units should have when `total` is shared by `workers`.
inline std::size_t unit_cost_for(std::size_t total, std::size_t workers) {
  return std::max(total / (workers * kUnitsPerWorker), kLeastUnitCost);
}

inline UnitGrid make_grid(const RowLayout& layout, std::size_t panels, std::size_t cols,
                          std::size_t target_cost) {
  UnitGrid grid;
  grid.row_blocks = std::min(row_blocks_for(layout), layout.groups);
  const std::size_t block_rows = (layout.rows + grid.row_blocks - 1) / grid.row_blocks;
  grid.panel_cost = product_cost(block_rows, 1, cols);
  const std::size_t per_group = std::clamp<std::size_t>(target_cost / grid.panel_cost, 1, panels);
  grid.panel_groups = (panels + per_group - 1) / per_group;
  return grid;
}

}  // namespace moesaic::cpu
