#include "common/quantize/codebook.hpp"

#include <cassert>

namespace moesaic {

void Codebook::set_norms() {
  norms.resize(words);
  for (std::size_t b = 0; b < words; ++b) {
    const float* v = values.data() + 4 * b;
    norms[b] = (v[0] * v[0] + v[1] * v[1]) + (v[2] * v[2] + v[3] * v[3]);
  }
}

Codebook ccq2_codebook(CodePair pair) {
  assert(is_valid(pair));
  Codebook book{4, 256, std::vector<float>(1024), {}};
  for (int b = 0; b < 256; ++b) {
    std::uint8_t levels[4];
    ccq2_levels(b * pair.scale + pair.zero, levels);
    for (int j = 0; j < 4; ++j)
      book.values[static_cast<std::size_t>(4 * b + j)] = static_cast<float>(levels[j] - 32);
  }
  book.set_norms();
  return book;
}

Codebook window_codebook(std::size_t weights, int bits) {
  const auto length = static_cast<std::size_t>(bits) + 2 * (weights - 1);
  Codebook book{weights, std::size_t{1} << length, {}, {}};
  book.values.resize(4 * book.words);
  for (std::size_t word = 0; word < book.words; ++word)
    for (std::size_t j = 0; j < weights; ++j) {
      const std::size_t level = word >> (2 * (weights - 1 - j)) & ((std::size_t{1} << bits) - 1);
      book.values[4 * word + j] = static_cast<float>(level) - static_cast<float>(1 << (bits - 1));
    }
  book.set_norms();
  return book;
}

CcqScheme ccq2_scheme(CodePair pair) {
  CcqScheme s{{ccq2_codebook(pair)}, {}, 31, 0.062F, 15, true};
  for (std::size_t k = 0; k < 64; k += 4) s.words.push_back({0, k});
  return s;
}

CcqScheme ccq25_scheme() {
  CcqScheme s{{window_codebook(3, 3), window_codebook(4, 3), window_codebook(1, 3)},
              {},
              3,
              0.55F,
              8191,
              false};
  for (std::size_t k = 0; k < 63; k += 7) {
    s.words.push_back({0, k});
    s.words.push_back({1, k + 3});
  }
  s.words.push_back({2, 63});
  return s;
}

CcqScheme ccq275_scheme() {
  CcqScheme s{{window_codebook(3, 4), window_codebook(1, 4)}, {}, 7, 0.30F, 15, true};
  for (std::size_t k = 0; k < 63; k += 3) s.words.push_back({0, k});
  s.words.push_back({1, 63});
  return s;
}

Codebook truncated(const Codebook& book, std::size_t used) {
  Codebook cut = book;
  for (std::size_t b = 0; b < book.words; ++b)
    for (std::size_t j = used; j < 4; ++j) cut.values[4 * b + j] = 0;
  cut.weights = used;
  cut.set_norms();
  return cut;
}

}  // namespace moesaic
