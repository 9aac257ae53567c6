#include "actors/supervisor/service_settings.hpp"

#include "common/base/version.hpp"
#include "common/kernels/isa.hpp"

namespace moesaic {

std::string model_directory(const Settings& settings) {
  const auto& named = settings.text("model.dir");
  return named.empty() ? demo_model_dir().string() : named;
}

ModelOptions model_options(const Settings& settings) {
  ModelOptions options;
  options.model = model_directory(settings);
  options.compute = settings.text("model.compute");
  options.threads = static_cast<unsigned>(settings.integer("engine.threads"));
  return options;
}

EngineSettings engine_settings(const Settings& settings, const Tokenizer& tokenizer) {
  EngineSettings engine;
  const auto& kv = settings.text("kv.dtype");
  if (kv == "f32") engine.kv_type = Compute::kF32;
  if (kv == "bf16") engine.kv_type = Compute::kBf16;
  if (kv == "int8") engine.kv_type = Compute::kInt;
  engine.kv_bytes = static_cast<std::uint64_t>(settings.integer("kv.bytes"));
  engine.max_context = static_cast<std::size_t>(settings.integer("engine.max_context"));
  engine.drawable_ids = static_cast<std::uint32_t>(tokenizer.size());
  engine.limits.max_running = static_cast<std::size_t>(settings.integer("engine.max_running"));
  engine.limits.max_waiting = static_cast<std::size_t>(settings.integer("engine.max_waiting"));
  engine.limits.step_rows = static_cast<std::size_t>(settings.integer("engine.step_rows"));
  engine.limits.prefill_chunk = static_cast<std::size_t>(settings.integer("engine.prefill_chunk"));
  return engine;
}

HttpServerConfig http_config(const Settings& settings) {
  HttpServerConfig config;
  config.host = settings.text("http.host");
  config.port = static_cast<std::uint16_t>(settings.integer("http.port"));
  config.allow_any_host = settings.yes("http.insecure_no_auth");
  config.header_limit = static_cast<std::size_t>(settings.integer("limits.header_bytes"));
  config.body_limit = static_cast<std::size_t>(settings.integer("limits.body_bytes"));
  return config;
}

TraceConfig trace_config(const Settings& settings, const std::string& program,
                         const std::string& instance) {
  TraceConfig config;
  config.endpoint = settings.text("trace.endpoint");
  config.service = program;
  config.instance = instance;
  config.version = kVersion;
  config.sample_ratio = static_cast<double>(settings.integer("trace.sample_percent")) / 100;
  return config;
}

Result<void> check_numerics(const Settings& settings) {
  const auto& numerics = settings.text("engine.numerics");
  const bool own_sums = active_isa() == Isa::kAvx512Bf16;
  const std::string level(isa_name(active_isa()));
  if (numerics == "portable" && own_sums)
    return fail(Errc::kInvalidArgument, "engine.numerics is portable, MOESAIC_ISA forces " + level +
                                            ", whose bf16 sums are not");
  if (numerics == "avx512bf16" && !own_sums)
    return fail(Errc::kInvalidArgument,
                "engine.numerics is avx512bf16, this process runs level " + level +
                    "; start it with MOESAIC_ISA=avx512bf16 on a CPU that has it");
  return {};
}

std::string describe_compute(Compute compute, const ThreadPool& pool) {
  return std::string(compute_name(compute)) + ", level " + std::string(isa_name(active_isa())) +
         ", " + std::to_string(pool.size()) + " threads";
}

}  // namespace moesaic
