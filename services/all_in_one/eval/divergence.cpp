#include "services/all_in_one/eval/divergence.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace moesaic {

void log_softmax(std::span<const float> logits, std::vector<double>& out) {
  assert(!logits.empty());
  out.resize(logits.size());
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = logits[i] - top;
    sum += std::exp(out[i]);
  }
  const double log_sum = std::log(sum);
  for (auto& value : out) value -= log_sum;
}

double Perplexity::value() const {
  return tokens > 0 ? std::exp(nll / static_cast<double>(tokens)) : 1.0;
}

void Divergence::add(std::span<const double> reference, std::span<const double> model) {
  assert(reference.size() == model.size());
  double sum = 0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const double p = std::exp(reference[i]);
    if (p > 0) sum += p * (reference[i] - model[i]);
  }
  ++positions;
  kl += sum;
  max = std::max(max, sum);
  const auto top = [](std::span<const double> p) {
    return std::max_element(p.begin(), p.end()) - p.begin();
  };
  if (top(reference) == top(model)) ++same_top;
}

void Divergence::add(const Divergence& other) {
  positions += other.positions;
  kl += other.kl;
  max = std::max(max, other.max);
  same_top += other.same_top;
}

}  // namespace moesaic
