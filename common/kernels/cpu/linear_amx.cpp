#include "common/kernels/cpu/linear_level.hpp"

namespace moesaic::cpu {

const LinearLevel& linear_amx() {
  static const LinearLevel level = [] {
    LinearLevel l = linear_avx512();
    l.integer = &kIntegerAmx;
    return l;
  }();
  return level;
}

}  // namespace moesaic::cpu
