#include "common/kernels/cpu/attention_impl.hpp"

namespace moesaic::attention_detail {

const Level kAmx = {.dots_f32 = dots_f32_avx512,
                    .dots_bf16 = dots_bf16_avx512,
                    .softmax = softmax_avx512,
                    .int8_step = int8_step_avx512,
                    .int8_pages = int8_pages_amx,
                    .integer = &cpu::kIntegerAmx,
                    .vectors = &kAvx512Vectors};

}  // namespace moesaic::attention_detail
