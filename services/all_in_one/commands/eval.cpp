#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>

#include "services/all_in_one/commands/commands.hpp"
#include "services/all_in_one/eval/evaluate.hpp"

namespace moesaic {
namespace {

namespace json = boost::json;

struct Options {
  ModelOptions model, reference;
  std::string data;
  std::vector<std::string> metrics;
  std::size_t limit = 0;
  EvalSettings settings;
  bool as_json = false;
};

double share(std::size_t part, std::size_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

json::object to_json(const EvalScore& score, const EvalSettings& settings) {
  json::object out{{"task", score.task}, {"items", score.items}};
  if (settings.accuracy) {
    out["right"] = score.right;
    out["accuracy"] = share(score.right, score.items);
    if (score.judged > 0)
      out["expected"] = {{"items", score.judged},
                         {"right", score.reference_right},
                         {"same_verdict", score.same_verdict}};
  }
  if (settings.perplexity) {
    out["perplexity"] = score.perplexity.value();
    out["answer_tokens"] = score.perplexity.tokens;
    if (score.reference_perplexity.tokens > 0)
      out["reference_perplexity"] = score.reference_perplexity.value();
  }
  if (settings.kl) {
    out["kl_mean"] = score.divergence.mean();
    out["kl_max"] = score.divergence.max;
    out["top1_agreement"] = score.divergence.agreement();
    out["positions"] = score.divergence.positions;
  }
  return out;
}

void print_row(const EvalScore& score, const EvalSettings& settings) {
  std::printf("| %-24s | %5zu |", score.task.empty() ? "-" : score.task.c_str(), score.items);
  if (settings.accuracy)
    std::printf(" %5.1f %% (%zu) |", 100 * share(score.right, score.items), score.right);
  if (settings.perplexity)
    std::printf(" %10.4f | %6zu |", score.perplexity.value(), score.perplexity.tokens);
  if (settings.kl)
    std::printf(" %9.6f | %8.4f | %7.2f %% |", score.divergence.mean(), score.divergence.max,
                100 * score.divergence.agreement());
  std::printf("\n");
}

void print(const EvalReport& report, const EvalSettings& settings) {
  std::string head = "| task                     | items |", line = "| --- | ---: |";
  const auto column = [&](const char* name) {
    head += std::string(" ") + name + " |";
    line += " ---: |";
  };
  if (settings.accuracy) column("right");
  if (settings.perplexity) {
    column("perplexity");
    column("tokens");
  }
  if (settings.kl) {
    column("KL, nats");
    column("largest");
    column("same top");
  }
  std::printf("%s\n%s\n", head.c_str(), line.c_str());
  for (const auto& task : report.tasks) print_row(task, settings);
  print_row(report.all, settings);
  const auto& all = report.all;
  if (settings.accuracy && all.judged > 0)
    std::printf("the items' own reference: %zu of %zu right, same verdict on %.1f %%\n",
                all.reference_right, all.judged, 100 * share(all.same_verdict, all.judged));
  if (settings.perplexity && all.reference_perplexity.tokens > 0)
    std::printf("perplexity of the reference: %.4f\n", all.reference_perplexity.value());
}

Result<void> choose_metrics(Options& options) {
  const bool compared = !options.reference.model.empty();
  if (options.metrics.empty()) {
    options.settings.kl = compared;
    return {};
  }
  const auto wanted = [&](const char* name) {
    return std::erase(options.metrics, std::string(name)) > 0;
  };
  options.settings.accuracy = wanted("accuracy");
  options.settings.perplexity = wanted("perplexity");
  options.settings.kl = wanted("kl");
  if (!options.metrics.empty())
    return fail(Errc::kInvalidArgument,
                "metric \"" + options.metrics.front() + "\": expected accuracy, perplexity or kl");
  if (options.settings.kl != compared)
    return fail(Errc::kInvalidArgument, compared ? "--reference is for the metric kl"
                                                 : "the metric kl needs --reference DIR");
  return {};
}

Result<void> run(Options options) {
  if (!options.model.synthetic.empty())
    return fail(Errc::kInvalidArgument,
                "eval needs a tokenizer: --model DIR rather than --synthetic");
  MOESAIC_CHECK(choose_metrics(options));
  MOESAIC_TRY(const auto items, read_chat_items(options.data, options.limit));
  std::optional<ModelOptions> reference;
  if (options.settings.kl) {
    reference = options.reference;
    reference->threads = options.model.threads;
  }
  const bool terminal = ::isatty(STDERR_FILENO) != 0;
  if (terminal)
    options.settings.progress = [&](const std::string& pass, std::size_t done) {
      std::fprintf(stderr, "\r\x1b[K%s: item %zu of %zu", pass.c_str(), done, items.size());
    };
  const auto report = evaluate(options.model, reference, items, options.settings);
  if (terminal) std::fputs("\r\x1b[K", stderr);
  MOESAIC_CHECK(report);
  if (!options.as_json) {
    print(*report, options.settings);
    return {};
  }
  json::array tasks;
  for (const auto& task : report->tasks) tasks.push_back(to_json(task, options.settings));
  json::object out{{"model", options.model.model},
                   {"compute", options.model.compute},
                   {"data", options.data},
                   {"all", to_json(report->all, options.settings)},
                   {"tasks", std::move(tasks)}};
  if (reference) {
    out["reference"] = reference->model;
    out["reference_compute"] = reference->compute;
  }
  std::printf("%s\n", json::serialize(out).c_str());
  return {};
}

}  // namespace

void add_eval(CLI::App& app, int& status) {
  auto* command = app.add_subcommand(
      "eval", "measure accuracy, perplexity and the distance from another model");
  const auto options = std::make_shared<Options>();
  add_model_options(*command, options->model);
  command->add_option("--reference", options->reference.model,
                      "checkpoint directory of the model to compare with");
  command->add_option("--reference-compute", options->reference.compute, "its --compute")
      ->capture_default_str();
  command
      ->add_option("--data", options->data,
                   "JSONL file of chats with answers; pictures as paths from its folder")
      ->required();
  command
      ->add_option("--metrics", options->metrics,
                   "accuracy, perplexity, kl (default: all that can be had)")
      ->delimiter(',');
  command->add_option("--limit", options->limit, "only the first N items; 0: all");
  command->add_option("--max-tokens", options->settings.max_tokens, "longest answer")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  command->add_flag("--json", options->as_json, "print JSON");
  command->footer(
      "Example: moesaic eval --data configs/models/ernie-vl-demo/eval/items.jsonl --reference "
      "configs/models/ernie-vl-demo");
  command->callback([options, &status] {
    default_to_demo(options->model);
    if (const auto done = run(*options); !done) status = report(done.error());
  });
}

}  // namespace moesaic
