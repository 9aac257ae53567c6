#include "common/kernels/cpu/integer_level.hpp"

namespace moesaic::cpu {
namespace {

void quantize(const float* x, std::size_t cols, std::size_t padded, std::size_t block,
              std::int8_t* q, float* scales) {
  kIntegerAvx512.quantize(x, cols, padded, block, q, scales);
}

void run(const IntegerJob& job) { kIntegerAvx512.run(job); }

}  // namespace

const IntegerLevel kIntegerAmx = {quantize, run};

}  // namespace moesaic::cpu
