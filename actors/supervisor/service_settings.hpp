#pragma once

#include <string>

#include "common/config/settings.hpp"
#include "common/engine/make_engine.hpp"
#include "common/engine/model_loader.hpp"
#include "common/http/server.hpp"
#include "common/tokenizer/tokenizer.hpp"
#include "common/trace/exporter.hpp"

namespace moesaic {

/// The checkpoint directory that the settings name, or the demo model's.
std::string model_directory(const Settings& settings);

/// From the sections model and engine.
ModelOptions model_options(const Settings& settings);

/// From the sections engine and kv.
EngineSettings engine_settings(const Settings& settings, const Tokenizer& tokenizer);

/// From the sections http and limits.
HttpServerConfig http_config(const Settings& settings);

/// From the section trace.
/// @param program  service.name of the spans: "moesaic-decoder"
/// @param instance the node's name
TraceConfig trace_config(const Settings& settings, const std::string& program,
                         const std::string& instance);

/// `portable` and `avx512bf16` differ in bf16 sums: a process runs what its configuration names, or
/// says why it cannot.
/// @errors kInvalidArgument
[[nodiscard]] Result<void> check_numerics(const Settings& settings);

/// What the process runs on, for banners: "bf16, level avx512, 2 threads".
std::string describe_compute(Compute compute, const ThreadPool& pool);

}  // namespace moesaic
