#include "common/model/synthetic_checkpoint.hpp"

#include <array>
#include <cstdio>
#include <cstring>
#include <map>

#include "common/base/write_file.hpp"
#include "common/model/tensor_names.hpp"
#include "common/model/weight_list.hpp"
#include "common/tensor/safetensors_writer.hpp"

namespace moesaic {
namespace {

/// One tensor to be written and the weights it is made of.
struct Plan {
  TensorSpec spec;
  std::vector<WeightId> parts;
  std::uint64_t bytes = 0;
};

std::vector<Plan> plan_tensors(const ModelConfig& config, const TensorLayout& layout) {
  std::vector<Plan> plans;
  std::map<std::string, std::size_t> known;
  for_each_weight(config, [&](const WeightId& id) {
    auto part = locate(config, layout, id);
    const auto dtype = is_router(id.kind) ? DType::kF32 : DType::kBf16;
    const auto [at, fresh] = known.try_emplace(part.name, plans.size());
    if (fresh) plans.push_back({{std::move(part.name), dtype, std::move(part.shape)}, {}, 0});
    auto& plan = plans[at->second];
    plan.parts.push_back(id);
    plan.bytes += weight_shape(config, id).elements() * dtype_bytes(dtype);
  });
  return plans;
}

/// Indices of the first tensor of each shard, and the end.
std::vector<std::size_t> cut_shards(const std::vector<Plan>& plans, std::uint64_t shard_bytes) {
  std::vector<std::size_t> first = {0};
  std::uint64_t used = 0;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    if (used > 0 && used + plans[i].bytes > shard_bytes) {
      first.push_back(i);
      used = 0;
    }
    used += plans[i].bytes;
  }
  first.push_back(plans.size());
  return first;
}

std::string shard_name(std::size_t shard, std::size_t shards) {
  if (shards == 1) return "model.safetensors";
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "model-%05zu-of-%05zu.safetensors", shard + 1, shards);
  return text.data();
}

std::string index_text(const std::vector<Plan>& plans, const std::vector<std::size_t>& first) {
  std::uint64_t total = 0;
  for (const auto& plan : plans) total += plan.bytes;
  std::string text =
      "{\n  \"metadata\": {\"total_size\": " + std::to_string(total) + "},\n  \"weight_map\": {";
  const char* separator = "\n";
  for (std::size_t s = 0; s + 1 < first.size(); ++s) {
    for (auto i = first[s]; i < first[s + 1]; ++i) {
      // Our own names: nothing in them needs escaping.
      text += separator;
      text += "    \"" + plans[i].spec.name + "\": \"" + shard_name(s, first.size() - 1) + "\"";
      separator = ",\n";
    }
  }
  return text + "\n  }\n}\n";
}

/// Copies one weight to its place in a stored tensor.
void place(const MatrixView& view, const StoredPart& part, std::byte* tensor) {
  const auto size = dtype_bytes(view.dtype);
  for (std::size_t r = 0; r < view.rows; ++r) {
    for (std::size_t c = 0; c < view.cols; ++c) {
      const auto to = part.offset + r * static_cast<std::size_t>(part.row_stride()) +
                      c * static_cast<std::size_t>(part.col_stride());
      std::memcpy(tensor + to * size, view.data + (r * view.cols + c) * size, size);
    }
  }
}

Result<void> append_tensor(const ModelConfig& config, const TensorLayout& layout,
                           const WeightSource& source, const Plan& plan,
                           SafetensorsWriter& writer) {
  const auto part = locate(config, layout, plan.parts.front());
  if (plan.parts.size() == 1 && !part.transposed) {
    MOESAIC_TRY(const auto whole, source.get(plan.parts.front()));
    return writer.append({whole.view.data, plan.bytes});
  }
  AlignedBuffer tensor(plan.bytes);
  for (const auto& id : plan.parts) {
    MOESAIC_TRY(const auto weight, source.get(id));
    place(weight.view, locate(config, layout, id), tensor.data());
  }
  return writer.append({tensor.data(), plan.bytes});
}

}  // namespace

Result<void> write_synthetic_checkpoint(const ModelConfig& config, std::string_view config_json,
                                        const std::filesystem::path& dir, std::uint64_t shard_bytes,
                                        unsigned threads, const LoadProgress& progress) try {
  std::filesystem::create_directories(dir);
  // A reader would mix old and new files.
  for (const auto* old : {"model.safetensors", "model.safetensors.index.json"}) {
    if (std::filesystem::exists(dir / old))
      return fail(Errc::kInvalidArgument,
                  (dir / old).string() + ": found, expected a directory without weights");
  }
  const auto layout = TensorLayout::original();
  const auto source = synthetic_weights(config, threads);
  const auto plans = plan_tensors(config, layout);
  const auto first = cut_shards(plans, shard_bytes);
  const auto shards = first.size() - 1;
  std::uint64_t written = 0;
  for (std::size_t s = 0; s < shards; ++s) {
    std::vector<TensorSpec> specs;
    for (auto i = first[s]; i < first[s + 1]; ++i) specs.push_back(plans[i].spec);
    const auto name = shard_name(s, shards);
    MOESAIC_TRY(auto writer, SafetensorsWriter::create(dir / name, specs));
    for (auto i = first[s]; i < first[s + 1]; ++i) {
      MOESAIC_CHECK(append_tensor(config, layout, *source, plans[i], writer));
      written += plans[i].bytes;
      if (progress) progress(written, name);
    }
    MOESAIC_CHECK(writer.finish());
  }
  if (shards > 1)
    MOESAIC_CHECK(write_file(dir / "model.safetensors.index.json", index_text(plans, first)));
  return write_file(dir / "config.json", config_json);
} catch (const std::filesystem::filesystem_error& e) {
  return fail(Errc::kIo, e.what());
} catch (const std::bad_alloc&) {
  return fail(Errc::kTooLarge, dir.string() + ": not enough memory for one tensor");
}

}  // namespace moesaic
