#include "common/kernels/weight_format.hpp"
#include "services/all_in_one/commands/commands.hpp"

namespace moesaic {

void add_model_options(CLI::App& command, ModelOptions& options) {
  auto* model = command.add_option("--model", options.model,
                                   "directory of a checkpoint or pack (default: the demo model)");
  command
      .add_option("--synthetic", options.synthetic,
                  "config.json of a model whose weights come from the fixed formula")
      ->excludes(model);
  command
      .add_option("--compute", options.compute, "f32, bf16 or int; auto: as the weights are stored")
      ->capture_default_str();
  command.add_option("--threads", options.threads, "kernel threads (default: one per CPU)")
      ->check(CLI::Range(1, 1024));
}

void add_experts_option(CLI::App& command, std::string& experts) {
  command.add_option("--experts", experts, "local, or routed:N through N shards in this process")
      ->capture_default_str();
}

void default_to_demo(ModelOptions& options) {
  if (options.model.empty() && options.synthetic.empty()) options.model = demo_model_dir();
}

std::vector<std::string> pack_format_names() {
  return {kPackFormatNames.begin(), kPackFormatNames.end()};
}

}  // namespace moesaic
