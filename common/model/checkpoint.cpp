#include "common/model/checkpoint.hpp"

#include <iterator>
#include <optional>
#include <string_view>
#include <unordered_set>

#include "common/model/weight_encoder.hpp"
#include "common/model/weight_list.hpp"

namespace moesaic {
namespace {

/// Which element types a weight may be stored in; matrices of Paddle exports also as U16.
bool type_fits(DType type, WeightKind kind, TensorFormat format) {
  if (type == DType::kU16) return format == TensorFormat::kPaddle;
  return type == DType::kF32 || type == DType::kBf16 || (type == DType::kF16 && !is_router(kind));
}

std::string types_text(WeightKind kind, TensorFormat format) {
  std::string text = is_router(kind) ? "F32 or BF16" : "BF16, F16 or F32";
  return format == TensorFormat::kPaddle ? text + " (or U16, bits of BF16)" : text;
}

Result<void> check_tensor(const StoredPart& part, const WeightId& id, TensorFormat format,
                          const FileTensor& found) {
  const auto& tensor = *found.tensor;
  const bool shape_ok = tensor.shape == part.shape;
  if (shape_ok && type_fits(tensor.dtype, id.kind, format)) return {};
  return fail(shape_ok ? Errc::kUnsupported : Errc::kShapeMismatch,
              found.file->path().string() + ": tensor \"" + part.name +
                  "\": " + describe(tensor.dtype, tensor.shape) + " found, expected " +
                  shape_text(part.shape) + " of " + types_text(id.kind, format));
}

std::unordered_set<std::string> as_set(std::vector<std::string> names) {
  return {std::make_move_iterator(names.begin()), std::make_move_iterator(names.end())};
}

}  // namespace

const StoredLinear* Checkpoint::stored_linear(const WeightId& id) const {
  if (linears_.empty() || !has_weight(config_, id)) return nullptr;
  const auto at = linears_.find(locate(config_, layout_, id).name);
  return at == linears_.end() ? nullptr : &at->second;
}

/// The quantised linear behind a part, found and checked when first asked for; null: floats.
Result<const StoredLinear*> Checkpoint::find_linear(const StoredPart& part, const WeightId& id) {
  constexpr std::string_view kFloats = ".weight";
  if (!part.transposed || !part.name.ends_with(kFloats) || is_router(id.kind)) return nullptr;
  if (const auto known = linears_.find(part.name); known != linears_.end()) return &known->second;
  const auto base = part.name.substr(0, part.name.size() - kFloats.size());
  const auto found = files_.tensors.find(base + ".quant_weight");
  if (found == files_.tensors.end()) return nullptr;
  const auto format = !config_.quantization ? StoredFormat::kFloat
                      : is_expert(id.kind)  ? config_.quantization->of_experts(id.layer)
                                            : config_.quantization->dense;
  const bool text_side = component_of(id) != Component::kVision;
  if (format == StoredFormat::kFloat || !text_side)
    return fail(Errc::kUnsupported,
                found->second.file->path().string() + ": tensor \"" + found->first +
                    "\": found, but config.json has no quantization_config that tells its format");
  MOESAIC_TRY(auto linear,
              StoredLinear::find(files_, base, format, static_cast<std::size_t>(part.shape[0]),
                                 static_cast<std::size_t>(part.shape[1])));
  return &linears_.emplace(part.name, std::move(linear)).first->second;
}

Result<void> Checkpoint::check(const std::filesystem::path& dir) {
  std::unordered_set<std::string> expected;
  std::optional<Error> error;
  for_each_weight(config_, [&](const WeightId& id) {
    if (error) return;
    auto part = locate(config_, layout_, id);
    const auto found = files_.tensors.find(part.name);
    Result<void> ok;
    const auto linear = find_linear(part, id);
    if (!linear) {
      error = linear.error();
      return;
    }
    if (*linear != nullptr) {
      expected.merge(as_set((*linear)->names()));
      return;
    }
    if (found == files_.tensors.end()) {
      const auto file = files_.files.size() == 1 ? files_.files.front()->path()
                                                 : dir / "model.safetensors.index.json";
      ok = fail(Errc::kNotFound, file.string() + ": tensor \"" + part.name +
                                     "\": nothing found, expected " + shape_text(part.shape) +
                                     " of " + types_text(id.kind, layout_.format));
    } else {
      ok = check_tensor(part, id, layout_.format, found->second);
    }
    if (!ok) error = std::move(ok).error();
    expected.insert(std::move(part.name));
  });
  if (error) return tl::make_unexpected(std::move(*error));

  for (const auto& [name, found] : files_.tensors) {
    if (expected.contains(name)) continue;
    if (config_.tie_word_embeddings && name.ends_with("lm_head.weight")) {
      spare_lm_head_ = true;
      continue;
    }
    return fail(Errc::kCorrupt, found.file->path().string() + ": tensor \"" + name +
                                    "\": " + describe(found.tensor->dtype, found.tensor->shape) +
                                    " found, expected only the " + std::to_string(expected.size()) +
                                    " tensors that config.json calls for");
  }
  return {};
}

Result<std::shared_ptr<const Checkpoint>> Checkpoint::open(const std::filesystem::path& dir,
                                                           const ModelConfig& config) {
  std::shared_ptr<Checkpoint> result(new Checkpoint);
  result->config_ = config;
  MOESAIC_TRY(result->files_, open_checkpoint_files(dir));
  const auto& tensors = result->files_.tensors;
  const auto has = [&](const std::string& name) { return tensors.contains(name); };
  MOESAIC_TRY(result->layout_, detect_layout(has, dir.string()));
  MOESAIC_CHECK(result->check(dir));
  return std::shared_ptr<const Checkpoint>(std::move(result));
}

Result<MatrixRef> Checkpoint::decoded(const StoredLinear& linear, const StoredPart& part,
                                      const WeightId& id) const {
  const auto shape = weight_shape(config_, id);
  MOESAIC_TRY(auto values, linear.decode(part.offset, shape.rows));
  auto memory = std::make_shared<AlignedBuffer>(std::move(values));
  const MatrixView view{memory->data(),
                        DType::kBf16,
                        shape.rows,
                        shape.cols,
                        static_cast<std::ptrdiff_t>(linear.stored_k()),
                        1};
  return MatrixRef{view, std::move(memory)};
}

std::optional<WeightFormat> Checkpoint::packed_format(const WeightId& id) const {
  const auto* linear = stored_linear(id);
  if (linear == nullptr) return std::nullopt;
  return linear->packed_format();
}

Result<PackedMatrix> Checkpoint::packed(const WeightId& id) const {
  const auto* linear = stored_linear(id);
  if (linear == nullptr) return WeightSource::packed(id);
  using enum WeightKind;
  return linear->pack(id.kind == kDenseGate || id.kind == kSharedGate || id.kind == kExpertGate);
}

Result<MatrixRef> Checkpoint::get(const WeightId& id) const {
  if (!has_weight(config_, id))
    return fail(Errc::kNotFound, "weight kind " + std::to_string(static_cast<int>(id.kind)) +
                                     " of layer " + std::to_string(id.layer) + ", expert " +
                                     std::to_string(id.expert) + ": not part of this model");
  const auto part = locate(config_, layout_, id);
  if (const auto* linear = stored_linear(id)) return decoded(*linear, part, id);
  const auto& found = files_.tensors.find(part.name)->second;  // `open` has checked all
  const auto shape = weight_shape(config_, id);
  const auto stored = found.tensor->dtype;
  MatrixRef ref;
  ref.view = {found.tensor->data + part.offset * dtype_bytes(stored),
              stored == DType::kU16 ? DType::kBf16 : stored,
              shape.rows,
              shape.cols,
              part.row_stride(),
              part.col_stride()};
  ref.owner = found.file;
  return ref;
}

Result<std::shared_ptr<const WeightSource>> open_checkpoint(const std::filesystem::path& dir,
                                                            const ModelConfig& config) {
  MOESAIC_TRY(auto checkpoint, Checkpoint::open(dir, config));
  return std::shared_ptr<const WeightSource>(std::move(checkpoint));
}

}  // namespace moesaic
