#include "common/media/preprocess.hpp"

#include <cstdio>
#include <cstring>

#include "common/base/read_file.hpp"
#include "common/tensor/safetensors.hpp"
#include "services/all_in_one/commands/commands.hpp"
#include "services/all_in_one/png_file.hpp"

namespace moesaic {
namespace {

struct Options {
  std::string model, output, png;
  std::vector<std::string> files;
  double video_fps = 0;
};

/// Pictures of one size as u8 [n, H, W, 3], or [H, W, 3] for a single one of an image.
Tensor pixels(const std::vector<RgbImage>& images, bool video) {
  const auto& first = images.front();
  std::vector<std::int64_t> shape{first.height, first.width, 3};
  if (video) shape.insert(shape.begin(), static_cast<std::int64_t>(images.size()));
  Tensor tensor(DType::kU8, std::move(shape));
  for (std::size_t i = 0; i < images.size(); ++i)
    std::memcpy(tensor.bytes.data() + i * images[i].rgb.size(), images[i].rgb.data(),
                images[i].rgb.size());
  return tensor;
}

/// Patches and grids of several items, one after the other.
struct Patches {
  std::vector<float> values;
  std::vector<std::int32_t> grids;

  void add(const VisualInput& input) {
    values.insert(values.end(), input.patches.begin(), input.patches.end());
    grids.insert(grids.end(), input.grid.begin(), input.grid.end());
  }
  void write(const std::string& pixel_name, const std::string& grid_name,
             std::map<std::string, Tensor>& out) const {
    Tensor pixel(DType::kF32,
                 {static_cast<std::int64_t>(values.size() / kPatchValues), kPatchValues});
    std::memcpy(pixel.bytes.data(), values.data(), values.size() * sizeof(float));
    Tensor grid(DType::kI32, {static_cast<std::int64_t>(grids.size() / 3), 3});
    std::memcpy(grid.bytes.data(), grids.data(), grids.size() * sizeof(std::int32_t));
    out.emplace(pixel_name, std::move(pixel));
    out.emplace(grid_name, std::move(grid));
  }
};

void describe(const std::string& name, const RgbImage& from, const PreparedVisual& prepared) {
  const auto& grid = prepared.input.grid;
  const auto& to = prepared.resized.front();
  std::printf("%s: %dx%d -> %dx%d, grid %dx%dx%d, %lld tokens\n", name.c_str(), from.width,
              from.height, to.width, to.height, grid[0], grid[1], grid[2],
              static_cast<long long>(placeholder_count(grid)));
}

Result<void> save_pngs(const std::string& folder, const std::string& stem,
                       const std::vector<RgbImage>& images) {
  if (folder.empty()) return {};
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  for (std::size_t i = 0; i < images.size(); ++i)
    MOESAIC_CHECK(write_png(
        std::filesystem::path(folder) / (stem + "." + std::to_string(i) + ".png"), images[i]));
  return {};
}

Result<std::vector<RgbImage>> decode_files(const std::vector<std::string>& files) {
  const ImageLimits limits;
  std::vector<RgbImage> images;
  for (const auto& file : files) {
    MOESAIC_TRY(const auto bytes, read_file(file, limits.max_bytes));
    auto image = decode_image(bytes, limits);
    if (!image) return fail(file, image.error());
    images.push_back(std::move(*image));
  }
  return images;
}

Result<void> run(const Options& options) {
  MOESAIC_TRY(const auto config, PreprocessConfig::load(options.model, default_font()));
  MOESAIC_TRY(auto images, decode_files(options.files));
  std::map<std::string, Tensor> out;
  Patches patches;
  if (options.video_fps > 0) {
    const auto first = images.front();
    const auto count = images.size();
    MOESAIC_TRY(const auto prepared,
                preprocess_video(config, std::move(images), options.video_fps));
    describe(std::to_string(count) + " frames", first, prepared);
    patches.add(prepared.input);
    out.emplace("video.0.rgb", pixels(prepared.drawn, true));
    out.emplace("video.0.resized", pixels(prepared.resized, true));
    MOESAIC_CHECK(save_pngs(options.png, "video.0.rgb", prepared.drawn));
    MOESAIC_CHECK(save_pngs(options.png, "video.0.resized", prepared.resized));
    patches.write("pixel_values_videos", "video_grid_thw", out);
    return write_safetensors(options.output, out);
  }
  for (std::size_t i = 0; i < images.size(); ++i) {
    const auto name = "image." + std::to_string(i);
    auto result = preprocess_image(config, images[i]);
    if (!result) return fail(options.files[i], result.error());
    describe(options.files[i], images[i], *result);
    patches.add(result->input);
    out.emplace(name + ".resized", pixels(result->resized, false));
    MOESAIC_CHECK(save_pngs(options.png, name + ".resized", result->resized));
    const std::vector<RgbImage> decoded{std::move(images[i])};
    out.emplace(name + ".rgb", pixels(decoded, false));
    MOESAIC_CHECK(save_pngs(options.png, name + ".rgb", decoded));
  }
  patches.write("pixel_values", "image_grid_thw", out);
  return write_safetensors(options.output, out);
}

}  // namespace

void add_preprocess(CLI::App& app, int& status) {
  auto* command =
      app.add_subcommand("preprocess", "show what the model sees of images or video frames");
  const auto options = std::make_shared<Options>();
  command->add_option("--model", options->model,
                      "checkpoint directory whose settings apply (default: the demo model)");
  command
      ->add_option("IMAGE", options->files,
                   "PNG, JPEG or WebP files; with --video-fps the frames of one video")
      ->required();
  command->add_option("--output", options->output, "safetensors file to write")->required();
  command->add_option("--png", options->png,
                      "also write the pictures as PNG files into this directory");
  command->add_option("--video-fps", options->video_fps, "frames per second of a video")
      ->check(CLI::PositiveNumber);
  command->footer("Example: moesaic preprocess cat.jpg --output cat.safetensors --png /tmp/seen");
  command->callback([options, &status] {
    if (options->model.empty()) options->model = demo_model_dir();
    if (const auto done = run(*options); !done) status = report(done.error());
  });
}

}  // namespace moesaic
