#include "common/model/stored_linear.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "common/base/log.hpp"
#include "common/quantize/ccq.hpp"
#include "common/quantize/wint.hpp"
#include "common/tensor/bf16.hpp"

namespace moesaic {
namespace {

using Shape = std::vector<std::int64_t>;

bool is_byte(DType type) { return type == DType::kU8 || type == DType::kI8; }
bool is_float(DType type) {
  return type == DType::kF32 || type == DType::kBf16 || type == DType::kU16 || type == DType::kF16;
}
bool is_bf16(DType type) { return type == DType::kBf16 || type == DType::kU16; }
bool is_f32(DType type) { return type == DType::kF32; }

std::int64_t dim(std::size_t n) { return static_cast<std::int64_t>(n); }

/// What a tensor must be.
struct Wanted {
  Shape shape;
  bool (*type)(DType) = nullptr;
  const char* types = "";
  bool vector = false;  ///< may have a leading 1
};

Error mismatch(const FileTensor& found, const std::string& name, const Wanted& wanted,
               const std::string& why = {}) {
  const bool type_ok = wanted.type(found.tensor->dtype);
  return {type_ok && why.empty() ? Errc::kShapeMismatch : Errc::kUnsupported,
          found.file->path().string() + ": tensor \"" + name +
              "\": " + describe(found.tensor->dtype, found.tensor->shape) + " found, expected " +
              shape_text(wanted.shape) + " of " + wanted.types + why};
}

Result<FileTensor> require(const CheckpointFiles& files, const std::string& name,
                           const Wanted& wanted) {
  const auto at = files.tensors.find(name);
  if (at == files.tensors.end())
    return fail(Errc::kNotFound, files.files.front()->path().parent_path().string() +
                                     ": tensor \"" + name + "\": nothing found, expected " +
                                     shape_text(wanted.shape) + " of " + wanted.types);
  const auto& found = at->second;
  auto shape = found.tensor->shape;
  if (wanted.vector && shape.size() == 2 && shape[0] == 1) shape.erase(shape.begin());
  if (shape == wanted.shape && wanted.type(found.tensor->dtype)) return found;
  return tl::make_unexpected(mismatch(found, name, wanted));
}

std::span<const std::uint8_t> bytes_of(const FileTensor& t) {
  return {reinterpret_cast<const std::uint8_t*>(t.tensor->data), t.tensor->bytes};
}

/// Copies, as nothing in a file is aligned.
std::vector<float> floats_of(const FileTensor& t) {
  const auto dtype = t.tensor->dtype;
  const std::size_t count = t.tensor->bytes / dtype_bytes(dtype);
  const MatrixView view{t.tensor->data, dtype, 1, count, dim(count), 1};
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = element_f32(view, 0, i);
  return values;
}
std::vector<Bf16> bf16_of(const FileTensor& t) {
  std::vector<Bf16> values(t.tensor->bytes / sizeof(Bf16));
  std::memcpy(values.data(), t.tensor->data, t.tensor->bytes);
  return values;
}

int bits_of(StoredFormat format) { return format == StoredFormat::kWint8 ? 8 : 4; }

/// Weights that a byte of `quant_weight` stands for.
std::size_t weights_a_byte(StoredFormat format) {
  return format == StoredFormat::kWint8 ? 1 : format == StoredFormat::kWint4 ? 2 : 4;
}

/// K as `quant_weight` has it; 0: no K that fits.
std::size_t k_of(StoredFormat format, std::size_t k, std::int64_t rows) {
  const auto stored = static_cast<std::size_t>(rows) * weights_a_byte(format);
  if (format != StoredFormat::kWint2) return stored == k ? k : 0;
  return stored % 64 == 0 && stored >= k && stored <= padded_cols(WeightFormat::kCcq2, k) ? stored
                                                                                          : 0;
}

/// Owns what a Ccq2View looks at, but for the bytes in the file.
struct Ccq2File {
  Ccq2File(const LinearTensors& from, std::size_t k, std::size_t n)
      : code_scale(floats_of(from.code_scale)), code_zp(floats_of(from.code_zp)) {
    if (from.super_scales.tensor != nullptr) super_scales = bf16_of(from.super_scales);
    view = {
        k,          n,      bytes_of(from.quant_weight), bytes_of(from.weight_scale), super_scales,
        code_scale, code_zp};
  }
  Ccq2File(const Ccq2File&) = delete;
  Ccq2File& operator=(const Ccq2File&) = delete;

  std::vector<Bf16> super_scales;
  std::vector<float> code_scale, code_zp;
  Ccq2View view;
};

bool all_integral(std::span<const float> values) {
  return std::ranges::all_of(values, [](float v) { return v == std::floor(v); });
}

/// The reader rule: what fusing a multiplication with an addition would change is worth a line.
void tell_of_fusing(const std::string& where, const Ccq2View& view) {
  if (all_integral(view.code_scale) && all_integral(view.code_zp)) return;
  const auto columns = columns_that_fusing_changes(view);
  if (columns.empty()) return;
  constexpr std::size_t kShown = 8;
  std::string text;
  for (std::size_t i = 0; i < columns.size() && i < kShown; ++i)
    text += " " + std::to_string(columns[i]);
  if (columns.size() > kShown) text += " ...";
  log(LogLevel::kWarn,
      where + ": " + std::to_string(columns.size()) + " of " + std::to_string(view.n) +
          " columns mean other weights to a reader that fuses code_scale with code_zp; they are "
          "read unfused:" +
          text);
}

}  // namespace

Result<StoredLinear> StoredLinear::find(const CheckpointFiles& files, const std::string& base,
                                        StoredFormat format, std::size_t k, std::size_t n) {
  StoredLinear linear;
  linear.base_ = base;
  linear.format_ = format;
  linear.n_ = n;
  linear.k_ = k;
  const bool wint2 = format == StoredFormat::kWint2;
  const std::size_t part = weights_a_byte(format), group = wint2 ? 64 : part;
  const Wanted weight{{dim((k + group - 1) / group * group / part), dim(n)}, is_byte, "U8 or I8"};
  const auto name = base + ".quant_weight";
  const auto at = files.tensors.find(name);
  if (at == files.tensors.end()) return tl::make_unexpected(require(files, name, weight).error());
  const auto& found = at->second;
  const auto& shape = found.tensor->shape;
  linear.stored_k_ = shape.size() == 2 && shape[1] == dim(n) ? k_of(format, k, shape[0]) : 0;
  if (linear.stored_k_ == 0 || !is_byte(found.tensor->dtype)) {
    const bool turned = shape.size() == 2 && shape != weight.shape &&
                        (shape == Shape{dim(n), dim(k)} || shape == Shape{dim(n), dim(k / 2)} ||
                         shape == Shape{dim(n / 2), dim(k)});
    return tl::make_unexpected(mismatch(
        found, name, weight,
        turned ? ": [out, in] is what kernels of one GPU want, permuted in ways of their own; only "
                 "[in, out] is a file format"
               : ""));
  }
  linear.tensors_.quant_weight = found;
  const Wanted values{{dim(n)}, is_float, "BF16, F16 or F32, a scale an output feature", true};
  const Wanted locals{{dim((linear.stored_k_ + 127) / 128), dim(n)},
                      is_byte,
                      "U8 or I8, two local scales of WINT2 a byte"};
  auto& tensors = linear.tensors_;
  MOESAIC_TRY(tensors.weight_scale,
              require(files, base + ".weight_scale", wint2 ? locals : values));
  if (!wint2) return linear;
  const Wanted bf16{{dim(n)}, is_bf16, "BF16 (or U16, bits of BF16)", true};
  const Wanted f32{{dim(n)}, is_f32, "F32", true};
  for (const auto* super : {".super_scales", ".super_scale"}) {
    if (!files.tensors.contains(base + super)) continue;
    MOESAIC_TRY(tensors.super_scales, require(files, base + super, bf16));
    linear.super_name_ = super;
    break;
  }
  MOESAIC_TRY(tensors.code_scale, require(files, base + ".code_scale", f32));
  MOESAIC_TRY(tensors.code_zp, require(files, base + ".code_zp", f32));
  return linear;
}

std::vector<std::string> StoredLinear::names() const {
  std::vector<std::string> names = {base_ + ".quant_weight", base_ + ".weight_scale"};
  if (tensors_.super_scales.tensor != nullptr) names.push_back(base_ + super_name_);
  if (format_ == StoredFormat::kWint2)
    names.insert(names.end(), {base_ + ".code_scale", base_ + ".code_zp"});
  return names;
}

std::uint64_t StoredLinear::bytes() const {
  std::uint64_t bytes = 0;
  for (const auto* t : {&tensors_.quant_weight, &tensors_.weight_scale, &tensors_.super_scales,
                        &tensors_.code_scale, &tensors_.code_zp})
    if (t->tensor != nullptr) bytes += t->tensor->bytes;
  return bytes;
}

WeightFormat StoredLinear::packed_format() const {
  return format_ == StoredFormat::kWint8   ? WeightFormat::kW8r
         : format_ == StoredFormat::kWint4 ? WeightFormat::kW4r
                                           : WeightFormat::kCcq2;
}

std::string StoredLinear::where() const {
  return tensors_.quant_weight.file->path().string() + ": \"" + base_ + "\"";
}

Result<PackedMatrix> StoredLinear::pack(bool gate_up) const {
  Result<PackedMatrix> packed;
  if (format_ == StoredFormat::kWint2) {
    packed = pack_wint2(gate_up);
  } else {
    const auto scales = floats_of(tensors_.weight_scale);
    packed =
        pack_wint({bits_of(format_), k_, n_, bytes_of(tensors_.quant_weight), scales}, gate_up);
  }
  if (!packed) return fail(where(), packed.error());
  return packed;
}

Result<PackedMatrix> StoredLinear::pack_wint2(bool gate_up) const {
  const Ccq2File file(tensors_, stored_k_, n_);
  auto packed = gate_up ? pack_ccq2_gate_up(file.view, k_) : pack_ccq2(file.view, k_);
  if (packed) tell_of_fusing(where(), file.view);
  return packed;
}

Result<AlignedBuffer> StoredLinear::decode(std::size_t first, std::size_t count) const {
  AlignedBuffer out(count * stored_k_ * sizeof(Bf16));
  const auto done = format_ == StoredFormat::kWint2 ? decode_wint2(first, count, out.as<Bf16>())
                                                    : decode_wint(first, count, out.as<Bf16>());
  if (!done) return fail(where(), done.error());
  return out;
}

Result<void> StoredLinear::decode_wint(std::size_t first, std::size_t count,
                                       std::span<Bf16> out) const {
  const auto scales = floats_of(tensors_.weight_scale);
  const WintView view{bits_of(format_), k_, n_, bytes_of(tensors_.quant_weight), scales};
  MOESAIC_CHECK(check(view));
  std::vector<float> values(count * k_);
  moesaic::decode(view, first, count, values);
  std::ranges::transform(values, out.begin(), f32_to_bf16);
  return {};
}

Result<void> StoredLinear::decode_wint2(std::size_t first, std::size_t count,
                                        std::span<Bf16> out) const {
  const Ccq2File file(tensors_, stored_k_, n_);
  MOESAIC_CHECK(check(file.view));
  std::vector<float> values(stored_k_ * n_);
  moesaic::decode(file.view, values);
  for (std::size_t c = 0; c < count; ++c)
    for (std::size_t k = 0; k < stored_k_; ++k)
      out[c * stored_k_ + k] = f32_to_bf16(values[k * n_ + first + c]);
  return {};
}

}  // namespace moesaic
