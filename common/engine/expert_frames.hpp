#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/result.hpp"
#include "common/engine/expert_backend.hpp"
#include "common/model/expert_table.hpp"
#include "common/transport/frame.hpp"

namespace moesaic {

/// Packs the rows of a call that have an expert named in `call.ids` into a frame, in their form:
/// f32, bf16, or int8 with block scales. Row numbers in
/// the answer are positions in `rows_sent`.
/// @param rows_sent out: positions in call.rows that travel
transport::Frame make_expert_rows(const ExpertCall& call, std::vector<std::uint32_t>& rows_sent);

/// A received frame as a call; spans point into the frame.
struct ExpertRows {
  ExpertCall call;
  std::vector<std::uint32_t> rows;  ///< 0..n-1: every row of the frame
};
/// @errors kShapeMismatch, kCorrupt: tensors missing, of another type, or sizes that disagree (a
/// peer's frame is input from outside)
[[nodiscard]] Result<ExpertRows> read_expert_rows(const transport::Frame& frame,
                                                  std::uint32_t hidden, Compute compute);

/// The answer: values as f32 in Compute::kF32, else as bf16.
transport::Frame make_expert_nodes(std::span<const ExpertNode> nodes, std::uint32_t hidden,
                                   Compute compute);

/// A received answer, with the values of its frame.
struct ExpertNodes {
  std::vector<std::uint32_t> row, node;
  Tensor values;  ///< [row.size(), hidden], f32 or bf16
};
/// @errors as `read_expert_rows`
[[nodiscard]] Result<ExpertNodes> read_expert_nodes(transport::Frame frame, std::uint32_t hidden,
                                                    Compute compute);

/// All rows of a step's layer, for a router that gates and dispatches (kMoeRows).
transport::Frame make_moe_rows(const MoeStep& step);
/// A received kMoeRows as a step; `x` points into the frame.
struct MoeRows {
  MoeStep step;
  std::vector<Modality> modality;  ///< what step.modality points to
};
/// @errors as `read_expert_rows`; kCorrupt: a layer without experts
[[nodiscard]] Result<MoeRows> read_moe_rows(const transport::Frame& frame,
                                            const ModelConfig& config, Compute compute);
/// The answer with room for its values [rows, hidden]: f32 in Compute::kF32, else bf16.
transport::Frame make_moe_sums(std::size_t rows, std::size_t hidden, Compute compute);
/// The values: they stay in the frame. @errors as `read_expert_rows`
[[nodiscard]] Result<Operand> read_moe_sums(const transport::Frame& frame, std::size_t rows,
                                            std::size_t hidden);

}  // namespace moesaic
