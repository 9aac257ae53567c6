#include "services/all_in_one/operations.hpp"

namespace moesaic {

double layer_operations(const ModelConfig& c) {
  double macs = 0;
  for (std::uint32_t layer = 0; layer < c.layers; ++layer) {
    macs += static_cast<double>(c.hidden) * c.head_dim * (2.0 * c.heads + 2.0 * c.kv_heads);
    const double width =
        c.layer_is_moe[layer]
            ? c.shared_width + static_cast<double>(c.experts_per_token) * c.expert_width[0]
            : c.intermediate;
    macs += 3.0 * c.hidden * width;
    if (c.layer_is_moe[layer]) macs += static_cast<double>(c.hidden) * c.experts[0];
  }
  return 2 * macs;
}

double prefill_operations(const ModelConfig& c, std::size_t tokens) {
  const auto n = static_cast<double>(tokens);
  const double attention = 4.0 * c.layers * c.heads * c.head_dim * n * (n + 1) / 2;
  return layer_operations(c) * n + attention + 2.0 * c.hidden * c.vocab_size;
}

}  // namespace moesaic
