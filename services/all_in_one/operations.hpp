#pragma once

#include <cstddef>

#include "common/model/config.hpp"

namespace moesaic {

/// Operations (a multiply-add is two) of one text token through all layers, without attention over
/// earlier tokens and without the output matrix.
double layer_operations(const ModelConfig& config);

/// Of a prompt of so many tokens: layers, attention, and the output matrix once.
double prefill_operations(const ModelConfig& config, std::size_t tokens);

}  // namespace moesaic
