#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "actors/supervisor/program.hpp"
#include "common/base/result.hpp"
#include "common/engine/model_loader.hpp"

namespace moesaic {

/// Adds --model, --synthetic, --compute, --threads to a command.
void add_model_options(CLI::App& command, ModelOptions& options);
/// Adds --experts, which `parse_experts` reads.
void add_experts_option(CLI::App& command, std::string& experts);
/// Fills in the demo model if neither --model nor --synthetic was given.
void default_to_demo(ModelOptions& options);
/// Values of --format: what models are packed in.
std::vector<std::string> pack_format_names();

// One file per sub-command. Each adds its command to `app`; running it sets `status`.
void add_quantize(CLI::App& app, int& status);
void add_serve(CLI::App& app, int& status);
void add_generate(CLI::App& app, int& status);
void add_forward(CLI::App& app, int& status);
void add_inspect(CLI::App& app, int& status);
void add_preprocess(CLI::App& app, int& status);
void add_tokenize(CLI::App& app, int& status);
void add_synth(CLI::App& app, int& status);
void add_bench(CLI::App& app, int& status);
void add_doctor(CLI::App& app, int& status);
void add_eval(CLI::App& app, int& status);
void add_keys(CLI::App& app, int& status);
void add_health(CLI::App& app, int& status);
void add_pack(CLI::App& app, int& status);
void add_place(CLI::App& app, int& status);
void add_plan(CLI::App& app, int& status);
void add_top(CLI::App& app, int& status);

}  // namespace moesaic
