#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace moesaic {

/// Log-probabilities of softmax(logits), summed in f64.
/// @pre logits not empty
void log_softmax(std::span<const float> logits, std::vector<double>& out);

/// How likely known tokens were: the sum of -ln p and what follows from it.
struct Perplexity {
  std::size_t tokens = 0;
  double nll = 0;  ///< natural logarithms, summed

  void add(std::span<const double> log_p, std::int32_t token) {
    ++tokens;
    nll -= log_p[static_cast<std::size_t>(token)];
  }
  void add(const Perplexity& other) {
    tokens += other.tokens;
    nll += other.nll;
  }
  /// exp(mean nll); 1 if there are no tokens.
  double value() const;
};

/// How far a model's distributions are from a reference's at the same positions.
struct Divergence {
  std::size_t positions = 0;
  double kl = 0;             ///< sum of KL(reference || model), nats
  double max = 0;            ///< the largest of them
  std::size_t same_top = 0;  ///< positions whose likeliest token (of equals the first) is the same

  /// @pre both of one size
  void add(std::span<const double> reference, std::span<const double> model);
  void add(const Divergence& other);
  double mean() const { return positions > 0 ? kl / static_cast<double>(positions) : 0; }
  /// Share of positions, 0 to 1.
  double agreement() const {
    return positions > 0 ? static_cast<double>(same_top) / static_cast<double>(positions) : 0;
  }
};

}  // namespace moesaic
