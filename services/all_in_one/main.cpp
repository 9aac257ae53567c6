#include <cstdio>

#include "common/base/version.hpp"
#include "common/kernels/isa.hpp"
#include "services/all_in_one/commands/commands.hpp"

int main(int argc, char** argv) {
  using namespace moesaic;
  // The instruction-set level is chosen before any kernel runs or thread starts.
  if (const auto isa = choose_isa(); !isa) return report(isa.error());

  CLI::App app("Moesaic: a server for ERNIE-4.5-VL, and the tools around it", "moesaic");
  app.set_version_flag("--version", std::string("moesaic ") + kVersion);
  app.require_subcommand(1);
  app.footer(
      "Examples:\n"
      "  moesaic serve                                       the demo model on "
      "http://127.0.0.1:8080\n"
      "  moesaic generate --image cat.png --prompt \"What is this?\"\n"
      "  moesaic inspect DIR                                 what a checkpoint holds\n"
      "Exit status: 0 ok, 1 failed, 2 usage, 3 bad configuration, model or input, 4 resources.");
  int status = kExitOk;
  for (auto* add : {add_serve, add_generate, add_forward, add_inspect, add_preprocess, add_tokenize,
                    add_synth, add_bench, add_doctor, add_eval, add_keys, add_health, add_pack,
                    add_quantize, add_place, add_plan, add_top})
    add(app, status);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  } catch (const std::bad_alloc&) {
    return report({Errc::kIo, "out of memory"});
  } catch (const std::exception& error) {
    return report({Errc::kInternal, error.what()});
  }
  return status;
}
