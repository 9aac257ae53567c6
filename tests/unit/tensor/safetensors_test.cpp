#include "common/tensor/safetensors.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <fstream>

#include "common/tensor/safetensors_writer.hpp"
#include "tests/support/temp_dir.hpp"

namespace moesaic {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Tensor tensor_of(DType dtype, std::vector<std::int64_t> shape, std::uint8_t seed) {
  Tensor tensor(dtype, std::move(shape));
  const auto bytes = tensor.elements() * dtype_bytes(dtype);
  for (std::size_t i = 0; i < bytes; ++i)
    tensor.bytes.data()[i] = static_cast<std::byte>(seed + 7 * i);
  return tensor;
}

std::map<std::string, Tensor> sample() {
  std::map<std::string, Tensor> tensors;
  tensors.emplace("a.u8", tensor_of(DType::kU8, {3}, 1));
  tensors.emplace("b \"quoted\"", tensor_of(DType::kBf16, {2, 5}, 2));
  tensors.emplace("c.f32", tensor_of(DType::kF32, {7, 1, 3}, 3));
  tensors.emplace("d.scalar", tensor_of(DType::kI64, {}, 4));
  tensors.emplace("d2.i8", tensor_of(DType::kI8, {5}, 6));
  tensors.emplace("e.empty", tensor_of(DType::kF16, {0, 4}, 5));
  return tensors;
}

TEST(SafetensorsTest, ReadsBackWhatWasWritten) {
  const test::TempDir dir;
  const auto written = sample();
  ASSERT_TRUE(write_safetensors(dir / "t.safetensors", written));
  const auto read = read_safetensors(dir / "t.safetensors");
  ASSERT_TRUE(read) << read.error().what;
  ASSERT_EQ(read->size(), written.size());
  for (const auto& [name, tensor] : written) {
    const auto& got = read->at(name);
    EXPECT_EQ(got.dtype, tensor.dtype) << name;
    EXPECT_EQ(got.shape, tensor.shape) << name;
    const auto bytes = tensor.elements() * dtype_bytes(tensor.dtype);
    EXPECT_TRUE(bytes == 0 || std::memcmp(got.bytes.data(), tensor.bytes.data(), bytes) == 0)
        << name;
  }
}

TEST(SafetensorsTest, AlignsTheDataAndEveryTensorToItsType) {
  const test::TempDir dir;
  ASSERT_TRUE(write_safetensors(dir / "t.safetensors", sample()));
  const auto file = SafetensorsFile::open(dir / "t.safetensors");
  ASSERT_TRUE(file) << file.error().what;
  for (const auto& [name, tensor] : (*file)->tensors()) {
    const auto at = reinterpret_cast<std::uintptr_t>(tensor.data);
    EXPECT_EQ(at % dtype_bytes(tensor.dtype), 0u) << name;
    EXPECT_EQ((at - tensor.offset) % 64, 0u) << name;
  }
}

TEST(SafetensorsTest, ReadsAFileOfTheReferenceImplementation) {
  const auto path =
      std::filesystem::path(MOESAIC_SOURCE_DIR) / "tests/golden/tiny/native/model.safetensors";
  const auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file) << file.error().what;
  EXPECT_EQ((*file)->path(), path);
  EXPECT_EQ((*file)->tensors().size(), 104u);
  const auto* gate = (*file)->find("model.language_model.layers.1.mlp.text_moe.gate.weight");
  ASSERT_NE(gate, nullptr);
  EXPECT_EQ(gate->dtype, DType::kF32);
  EXPECT_THAT(gate->shape, ElementsAre(8, 128));
  EXPECT_EQ(gate->bytes, 8u * 128 * 4);
  EXPECT_EQ((*file)->find("model.language_model.layers.9.mlp.text_moe.gate.weight"), nullptr);
}

TEST(SafetensorsTest, KeepsTheMetadata) {
  std::map<std::string, std::string> metadata;
  const auto tensors = parse_safetensors_header(
      R"({"__metadata__":{"format":"pt","note":"\u00e9"}})", 0, "t", &metadata);
  ASSERT_TRUE(tensors) << tensors.error().what;
  EXPECT_TRUE(tensors->empty());
  EXPECT_EQ(metadata["format"], "pt");
  EXPECT_EQ(metadata["note"], "\xc3\xa9");
}

TEST(SafetensorsTest, AnAbandonedWriterLeavesNoFile) {
  const test::TempDir dir;
  const std::vector<TensorSpec> specs = {{"a", DType::kU8, {4}}};
  {
    auto writer = SafetensorsWriter::create(dir / "t.safetensors", specs);
    ASSERT_TRUE(writer) << writer.error().what;
    const std::array<std::byte, 3> three{};
    ASSERT_TRUE(writer->append(three));
    const auto finished = writer->finish();  // one byte is missing
    ASSERT_FALSE(finished);
    EXPECT_THAT(finished.error().what, HasSubstr("3 bytes of data written, expected 4"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(SafetensorsTest, AMissingFolderIsAnErrorOfTheWriter) {
  const test::TempDir dir;
  const auto written = write_safetensors(dir / "none/t.safetensors", sample());
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, Errc::kIo);
  EXPECT_THAT(written.error().what, HasSubstr("none/t.safetensors"));
}

TEST(SafetensorsTest, RefusesWhatIsNotARegularFileWithoutWaiting) {
  const test::TempDir dir;
  const auto pipe = dir / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  for (const auto& path : {dir.path(), pipe}) {
    const auto file = SafetensorsFile::open(path);
    ASSERT_FALSE(file) << path;
    EXPECT_EQ(file.error().code, Errc::kIo);
    EXPECT_THAT(file.error().what, HasSubstr(path.string()));
  }
  const auto missing = SafetensorsFile::open(dir / "missing");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Errc::kNotFound);
}

}  // namespace
}  // namespace moesaic
