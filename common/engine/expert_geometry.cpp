#include "common/engine/expert_geometry.hpp"

#include "common/kernels/packed_matrix.hpp"

namespace moesaic {

cluster::ExpertGeometry expert_geometry(const ModelConfig& config, Compute compute,
                                        const std::array<WeightFormat, kModalities>& formats) {
  cluster::ExpertGeometry geometry;
  geometry.layer_is_moe = config.layer_is_moe;
  geometry.experts = config.experts;
  geometry.hidden = config.hidden;
  geometry.top_k = config.experts_per_token;
  geometry.row_bytes = geometry.node_bytes =
      config.hidden * static_cast<std::uint32_t>(operand_bytes(normed_form(compute)));
  if (is_integer(formats[0])) {
    const auto padded = padded_cols(formats[0], config.hidden);
    geometry.row_bytes = static_cast<std::uint32_t>(padded + padded / a8_block(padded) * 4);
  }
  for (std::size_t m = 0; m < kModalities; ++m) {
    PackedMatrix gate_up, down;
    gate_up.format = down.format = formats[m];
    gate_up.rows = down.cols = config.expert_width[m];
    gate_up.cols = down.rows = config.hidden;
    gate_up.gate_up = true;
    geometry.expert_bytes[m] = gate_up.bytes() + down.bytes();
  }
  return geometry;
}

}  // namespace moesaic
