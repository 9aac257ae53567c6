#include "services/all_in_one/bench/driver.hpp"

#include <set>
#include <utility>

namespace moesaic {
namespace {

std::uint64_t hash(std::uint64_t n) {
  n = (n + 1) * 0x9E3779B97F4A7C15U;
  return n ^ (n >> 32);
}

std::int32_t some_id(const ModelConfig& config, std::uint64_t n) {
  auto id = static_cast<std::int32_t>((hash(n) >> 33) % config.vocab_size);
  while (config.routing_modality(id) != Modality::kText)
    id = (id + 1) % static_cast<std::int32_t>(config.vocab_size);
  return id;
}

}  // namespace

void ExpertCounter::put(const std::string& name, std::span<const std::int32_t> ids,
                        std::span<const std::size_t>) {
  if (name.ends_with(".index")) distinct_ += std::set<std::int32_t>(ids.begin(), ids.end()).size();
}

std::size_t ExpertCounter::take() { return std::exchange(distinct_, 0); }

BenchDriver::BenchDriver(const LoadedModel& model, Compute kv, std::size_t sequences,
                         std::size_t tokens)
    : model_(model),
      kv_(DecoderStep::attention_shape(model.config, kv), model.config.layers,
          sequences * kv_blocks_for(tokens)),
      experts_(model.config, model.gates, model.experts.front(), *model.pool),
      step_(model.config, model.decoder, model.compute, kv_, experts_, *model.pool) {
  std::uint64_t next_id = 0;
  for (std::size_t s = 0; s < sequences; ++s) {
    auto request = std::make_shared<GenerateRequest>();
    auto& sequence = sequences_.emplace_back();
    for (std::size_t i = 0; i < tokens; ++i)
      sequence.tokens.push_back(some_id(model.config, next_id++));
    request->prompt = sequence.tokens;
    sequence.request = request;
    for (std::size_t i = 0; i < kv_blocks_for(tokens); ++i)
      sequence.blocks.push_back(*kv_.allocate());
  }
}

void BenchDriver::fill(std::size_t tokens) {
  const auto& config = model_.config;
  // Vectors are pieces of one area of uniform values.
  std::vector<float> area(4096 + config.head_dim);
  for (std::size_t i = 0; i < area.size(); ++i)
    area[i] = static_cast<float>(hash(i) >> 40) * 0x1p-23F - 1.0F;
  const auto& shape = kv_.shape();
  const std::size_t blocks = (tokens + kPageTokens - 1) / kPageTokens;
  model_.pool->parallel_for(sequences_.size() * blocks, [&](std::size_t task) {
    const auto& sequence = sequences_[task / blocks];
    const std::size_t block = task % blocks;
    const std::size_t last = std::min(tokens - block * kPageTokens, kPageTokens);
    std::uint64_t n = task * 1'000'003;
    for (std::uint32_t layer = 0; layer < config.layers; ++layer)
      for (std::uint32_t head = 0; head < config.kv_heads; ++head) {
        auto* page = kv_.page(sequence.blocks[block], layer, head);
        for (std::size_t t = 0; t < last; ++t, ++n) {
          const auto at = hash(n);
          append_kv(shape, page, t, area.data() + at % 4096, area.data() + (at >> 20) % 4096);
        }
      }
  });
}

Result<void> BenchDriver::run(std::size_t first, std::size_t rows) {
  batch_.clear();
  for (const auto& sequence : sequences_) {
    append_rows(sequence, first, rows, batch_);
    batch_.logit_rows.push_back(static_cast<std::uint32_t>(batch_.ids.size() - 1));
  }
  if (const auto done = step_.run(batch_); !done) return tl::make_unexpected(done.error());
  return {};
}

Result<std::size_t> BenchDriver::count_experts(std::size_t first, std::size_t rows) {
  step_.set_taps(&counter_);
  const auto done = run(first, rows);
  step_.set_taps(nullptr);
  if (!done) return tl::make_unexpected(done.error());
  return counter_.take();
}

double BenchDriver::token_bytes() const {
  return static_cast<double>(PagedKvCache::block_bytes(kv_.shape(), model_.config.layers)) /
         kPageTokens;
}

}  // namespace moesaic
