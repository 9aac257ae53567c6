#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/kernels/isa.hpp"
#include "common/quantize/ccq.hpp"

namespace moesaic {

/// The values that the words of a CCQ format can take together: vectors of 1 to 4 weights.
struct Codebook {
  std::size_t weights = 0;    ///< 1..4
  std::size_t words = 0;      ///< a multiple of 4
  std::vector<float> values;  ///< [words][4], zeros beyond `weights`
  std::vector<float> norms;   ///< [words] squared lengths

  void set_norms();
};

/// All 256 bytes of CCQ-2 under a pair.
Codebook ccq2_codebook(CodePair pair);
/// All words of `weights` windows of `bits` bits, two bits apart, less 2^(bits - 1).
Codebook window_codebook(std::size_t weights, int bits);

/// One sub-word of a group of 64 weights.
struct WordPlace {
  std::size_t book = 0;   ///< in CcqScheme::books
  std::size_t first = 0;  ///< first weight, 0..63
};

/// A member of the family: its codebooks, its group of 64 and the start of its search for scales.
struct CcqScheme {
  std::vector<Codebook> books;
  std::vector<WordPlace> words;  ///< of a group, in order
  float most_value = 0;          ///< largest magnitude that both signs reach
  float start = 0;               ///< best step / RMS of Gaussian groups [quantization.md 6.3]
  int most_local = 0;            ///< largest local scale
  bool search_super = false;     ///< try several super scales
};

CcqScheme ccq2_scheme(CodePair pair);
CcqScheme ccq25_scheme();
CcqScheme ccq275_scheme();

/// The book for the first `used` weights of its words: the others are free.
Codebook truncated(const Codebook& book, std::size_t used);

}  // namespace moesaic
