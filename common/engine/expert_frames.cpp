#include "common/engine/expert_frames.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace moesaic {
namespace {

/// int8 has no type of its own in frames: its bit patterns travel.
DType operand_dtype(Compute form) {
  return form == Compute::kF32 ? DType::kF32 : form == Compute::kBf16 ? DType::kBf16 : DType::kU8;
}

/// Of what a shard or a router answers.
DType value_dtype(Compute compute) { return rounds_to_bf16(compute) ? DType::kBf16 : DType::kF32; }

/// Stored columns of a row of an operand.
std::size_t operand_cols(const Operand& x) {
  return x.compute == Compute::kInt ? x.stride : x.cols;
}

Tensor make_tensor(DType dtype, std::size_t rows, std::size_t cols) {
  return {dtype, {static_cast<std::int64_t>(rows), static_cast<std::int64_t>(cols)}};
}

Result<void> expect(const Tensor& tensor, const char* name, DType dtype, std::size_t rows,
                    std::size_t cols) {
  if (tensor.dtype == dtype && tensor.shape.size() == 2 &&
      tensor.shape[0] == static_cast<std::int64_t>(rows) &&
      tensor.shape[1] == static_cast<std::int64_t>(cols))
    return {};
  std::string found(dtype_name(tensor.dtype));
  for (const auto d : tensor.shape) found += " " + std::to_string(d);
  return fail(Errc::kShapeMismatch, std::string("expert frame: ") + name + ": " + found +
                                        ", expected " + std::string(dtype_name(dtype)) + " " +
                                        std::to_string(rows) + " " + std::to_string(cols));
}

}  // namespace

transport::Frame make_expert_rows(const ExpertCall& call, std::vector<std::uint32_t>& rows_sent) {
  const std::size_t top_k = call.rows.empty() ? 0 : call.ids.size() / call.rows.size();
  rows_sent.clear();
  for (std::uint32_t r = 0; r < call.rows.size(); ++r) {
    const auto ids = call.ids.subspan(r * top_k, top_k);
    if (std::any_of(ids.begin(), ids.end(), [](std::uint32_t id) { return id != kNoExpert; }))
      rows_sent.push_back(r);
  }
  const std::size_t rows = rows_sent.size();
  transport::Frame frame;
  frame.type = transport::FrameType::kExpertRows;
  frame.layer = static_cast<std::uint16_t>(call.layer);
  frame.modality = static_cast<std::uint8_t>(call.modality);
  // The element types are the closest the format has: ids and masks are bit patterns (kNoExpert is
  // -1).
  const std::size_t cols = operand_cols(call.x);
  const std::size_t blocks = call.x.compute == Compute::kInt ? cols / call.x.block : 0;
  frame.tensors.push_back(make_tensor(operand_dtype(call.x.compute), rows, cols));
  frame.tensors.push_back(make_tensor(DType::kI32, rows, top_k));
  frame.tensors.push_back(make_tensor(DType::kF32, rows, top_k));
  frame.tensors.push_back(make_tensor(DType::kI64, rows, 1));
  if (blocks > 0) frame.tensors.push_back(make_tensor(DType::kF32, rows, blocks));
  const std::size_t row_bytes = cols * operand_bytes(call.x.compute);
  for (std::size_t i = 0; i < rows; ++i) {
    const auto r = rows_sent[i];
    const auto* from = static_cast<const std::byte*>(call.x.data) +
                       call.rows[r] * call.x.stride * operand_bytes(call.x.compute);
    std::memcpy(frame.tensors[0].bytes.data() + i * row_bytes, from, row_bytes);
    std::memcpy(frame.tensors[1].bytes.data() + i * top_k * 4, call.ids.data() + r * top_k,
                top_k * 4);
    std::memcpy(frame.tensors[2].bytes.data() + i * top_k * 4, call.weights.data() + r * top_k,
                top_k * 4);
    std::memcpy(frame.tensors[3].bytes.data() + i * 8, call.chosen.data() + r, 8);
    if (blocks > 0)
      std::memcpy(frame.tensors[4].as<float>().data() + i * blocks,
                  call.x.scales + call.rows[r] * blocks, blocks * sizeof(float));
  }
  return frame;
}

Result<ExpertRows> read_expert_rows(const transport::Frame& frame, std::uint32_t hidden,
                                    Compute compute) {
  const bool quantized = compute == Compute::kInt && frame.tensors.size() == 5;
  if (frame.type != transport::FrameType::kExpertRows ||
      (frame.tensors.size() != 4 && !quantized) || frame.modality >= kModalities)
    return fail(Errc::kCorrupt, "expert frame: type " +
                                    std::to_string(static_cast<int>(frame.type)) + ", " +
                                    std::to_string(frame.tensors.size()) + " tensors, modality " +
                                    std::to_string(frame.modality));
  const auto& ids = frame.tensors[1];
  if (ids.shape.size() != 2 || ids.shape[0] < 0 || ids.shape[1] < 0)
    return fail(Errc::kShapeMismatch, "expert frame: ids are no matrix");
  const auto rows = static_cast<std::size_t>(ids.shape[0]);
  const auto top_k = static_cast<std::size_t>(ids.shape[1]);
  const auto form = quantized ? Compute::kInt : normed_form(compute);
  const auto& values = frame.tensors[0];
  // Formats differ in how they pad K; the experts check that it is theirs.
  const bool wide =
      quantized && values.shape.size() == 2 &&
      values.shape[1] == static_cast<std::int64_t>(padded_cols(WeightFormat::kCcq2, hidden));
  const auto cols = !quantized ? std::size_t{hidden}
                    : wide     ? padded_cols(WeightFormat::kCcq2, hidden)
                               : padded_cols(WeightFormat::kW8r, hidden);
  MOESAIC_CHECK(expect(values, "rows", operand_dtype(form), rows, cols));
  if (quantized)
    MOESAIC_CHECK(expect(frame.tensors[4], "scales", DType::kF32, rows, cols / a8_block(cols)));
  MOESAIC_CHECK(expect(ids, "ids", DType::kI32, rows, top_k));
  MOESAIC_CHECK(expect(frame.tensors[2], "weights", DType::kF32, rows, top_k));
  MOESAIC_CHECK(expect(frame.tensors[3], "masks", DType::kI64, rows, 1));
  ExpertRows out;
  out.rows.resize(rows);
  std::iota(out.rows.begin(), out.rows.end(), 0U);
  out.call.layer = frame.layer;
  out.call.modality = static_cast<Modality>(frame.modality);
  out.call.x = {form, values.bytes.data(), rows, hidden, cols};
  if (quantized) {
    out.call.x.scales = frame.tensors[4].as<float>().data();
    out.call.x.block = a8_block(cols);
  }
  out.call.rows = out.rows;
  out.call.ids = frame.tensors[1].as<std::uint32_t>();
  out.call.weights = frame.tensors[2].as<float>();
  out.call.chosen = frame.tensors[3].as<std::uint64_t>();
  return out;
}

transport::Frame make_expert_nodes(std::span<const ExpertNode> nodes, std::uint32_t hidden,
                                   Compute compute) {
  transport::Frame frame;
  frame.type = transport::FrameType::kExpertNodes;
  frame.tensors.push_back(make_tensor(DType::kI32, nodes.size(), 2));
  frame.tensors.push_back(make_tensor(value_dtype(compute), nodes.size(), hidden));
  const std::size_t value_bytes = hidden * operand_bytes(normed_form(compute));
  auto numbers = frame.tensors[0].as<std::uint32_t>();
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    numbers[2 * i] = nodes[i].row;
    numbers[2 * i + 1] = nodes[i].node;
    std::memcpy(frame.tensors[1].bytes.data() + i * value_bytes, nodes[i].value, value_bytes);
  }
  return frame;
}

Result<ExpertNodes> read_expert_nodes(transport::Frame frame, std::uint32_t hidden,
                                      Compute compute) {
  if (frame.type != transport::FrameType::kExpertNodes || frame.tensors.size() != 2 ||
      frame.tensors[0].shape.size() != 2)
    return fail(Errc::kCorrupt, "expert answer: type " +
                                    std::to_string(static_cast<int>(frame.type)) + ", " +
                                    std::to_string(frame.tensors.size()) + " tensors");
  const auto nodes = static_cast<std::size_t>(frame.tensors[0].shape[0]);
  MOESAIC_CHECK(expect(frame.tensors[0], "numbers", DType::kI32, nodes, 2));
  MOESAIC_CHECK(expect(frame.tensors[1], "values", value_dtype(compute), nodes, hidden));
  ExpertNodes out;
  out.row.resize(nodes);
  out.node.resize(nodes);
  const auto numbers = frame.tensors[0].as<std::uint32_t>();
  for (std::size_t i = 0; i < nodes; ++i) {
    out.row[i] = numbers[2 * i];
    out.node[i] = numbers[2 * i + 1];
  }
  out.values = std::move(frame.tensors[1]);
  return out;
}

transport::Frame make_moe_rows(const MoeStep& step) {
  const std::size_t rows = step.x.rows, hidden = step.x.cols;
  transport::Frame frame;
  frame.type = transport::FrameType::kMoeRows;
  frame.layer = static_cast<std::uint16_t>(step.layer);
  frame.trace = step.context.trace;
  frame.tensors.push_back(make_tensor(operand_dtype(step.x.compute), rows, hidden));
  frame.tensors.push_back(make_tensor(DType::kU8, rows, 1));
  const std::size_t size = operand_bytes(step.x.compute);
  for (std::size_t r = 0; r < rows; ++r)
    std::memcpy(frame.tensors[0].bytes.data() + r * hidden * size,
                static_cast<const std::byte*>(step.x.data) + r * step.x.stride * size,
                hidden * size);
  std::memcpy(frame.tensors[1].bytes.data(), step.modality.data(), rows);
  return frame;
}

Result<MoeRows> read_moe_rows(const transport::Frame& frame, const ModelConfig& config,
                              Compute compute) {
  if (frame.type != transport::FrameType::kMoeRows || frame.tensors.size() != 2 ||
      frame.tensors[0].shape.size() != 2 || frame.tensors[0].shape[0] < 1 ||
      frame.layer >= config.layers || !config.layer_is_moe[frame.layer])
    return fail(Errc::kCorrupt, "router frame: type " +
                                    std::to_string(static_cast<int>(frame.type)) + ", " +
                                    std::to_string(frame.tensors.size()) + " tensors, layer " +
                                    std::to_string(frame.layer));
  const auto rows = static_cast<std::size_t>(frame.tensors[0].shape[0]);
  const auto form = normed_form(compute);
  MOESAIC_CHECK(expect(frame.tensors[0], "rows", operand_dtype(form), rows, config.hidden));
  MOESAIC_CHECK(expect(frame.tensors[1], "modalities", DType::kU8, rows, 1));
  MoeRows out;
  for (const auto value : frame.tensors[1].as<std::uint8_t>()) {
    if (value >= kModalities)
      return fail(Errc::kCorrupt, "router frame: modality " + std::to_string(value));
    out.modality.push_back(static_cast<Modality>(value));
  }
  out.step.layer = frame.layer;
  out.step.x = {form, frame.tensors[0].bytes.data(), rows, config.hidden, config.hidden};
  out.step.modality = out.modality;
  out.step.context.trace = frame.trace;
  return out;
}

transport::Frame make_moe_sums(std::size_t rows, std::size_t hidden, Compute compute) {
  transport::Frame frame;
  frame.type = transport::FrameType::kMoeSums;
  frame.tensors.push_back(make_tensor(value_dtype(compute), rows, hidden));
  return frame;
}

Result<Operand> read_moe_sums(const transport::Frame& frame, std::size_t rows, std::size_t hidden) {
  if (frame.type != transport::FrameType::kMoeSums || frame.tensors.size() != 1)
    return fail(Errc::kCorrupt, "router answer: type " +
                                    std::to_string(static_cast<int>(frame.type)) + ", " +
                                    std::to_string(frame.tensors.size()) + " tensors");
  const auto& sums = frame.tensors[0];
  const bool f32 = sums.dtype == DType::kF32;
  MOESAIC_CHECK(expect(sums, "sums", f32 ? DType::kF32 : DType::kBf16, rows, hidden));
  return Operand{f32 ? Compute::kF32 : Compute::kBf16, sums.bytes.data(), rows, hidden, hidden};
}

}  // namespace moesaic
