#include "services/all_in_one/eval/evaluate.hpp"

#include <algorithm>

#include "services/all_in_one/eval/accuracy.hpp"
#include "services/all_in_one/eval/known_answer.hpp"
#include "services/all_in_one/eval/scratch_file.hpp"

namespace moesaic {
namespace {

/// A model and the encoder of its items.
struct Subject {
  LoadedModel model;
  ItemEncoder encoder;
};

Result<Subject> load_subject(ModelOptions options, std::span<const ChatItem> items) {
  options.vision = std::any_of(items.begin(), items.end(),
                               [](const ChatItem& item) { return !item.visuals.empty(); });
  MOESAIC_TRY(auto model, load_model(options));
  MOESAIC_TRY(auto encoder, ItemEncoder::load(options.model, model.config, model.vision_compute,
                                              model.vision, model.pool));
  return Subject{std::move(model), std::move(encoder)};
}

/// What the reference said, kept until the model is asked.
struct ReferenceRun {
  ScratchFile logits;  ///< f32, position by position
  std::size_t drawable_ids = 0;
  std::vector<std::vector<std::int32_t>> tokens;  ///< per item: prompt and answer
  std::vector<Perplexity> perplexity;             ///< per item
};

std::vector<std::int32_t> all_tokens(const EncodedItem& item) {
  auto tokens = item.prompt;
  tokens.insert(tokens.end(), item.answer.begin(), item.answer.end());
  return tokens;
}

Result<ReferenceRun> run_reference(const ModelOptions& options, std::span<const ChatItem> items,
                                   const EvalSettings& settings) {
  MOESAIC_TRY(auto subject, load_subject(options, items));
  MOESAIC_TRY(auto scratch, ScratchFile::create(settings.temp_dir));
  ReferenceRun run{std::move(scratch), subject.encoder.drawable_ids(), {}, {}};
  KnownAnswers known(subject.model, subject.encoder.drawable_ids());
  std::vector<double> log_p;
  for (const auto& item : items) {
    MOESAIC_TRY(const auto encoded, subject.encoder.encode(item, true));
    Perplexity perplexity;
    const auto done = known.run(
        encoded,
        [&](std::size_t, std::span<const float> logits, std::int32_t token) -> Result<void> {
          log_softmax(logits, log_p);
          perplexity.add(log_p, token);
          MOESAIC_CHECK(run.logits.append(std::as_bytes(logits)));
          return {};
        });
    if (!done) return fail(item.where, done.error());
    run.tokens.push_back(all_tokens(encoded));
    run.perplexity.push_back(perplexity);
    if (settings.progress) settings.progress("reference", run.tokens.size());
  }
  return run;
}

/// The model's side: items in groups, each encoded once for all metrics.
class Evaluation {
 public:
  Evaluation(Subject subject, std::optional<ReferenceRun> reference, const EvalSettings& settings)
      : subject_(std::move(subject)),
        reference_(std::move(reference)),
        settings_(settings),
        known_(subject_.model, subject_.encoder.drawable_ids()) {}

  /// Scores in order of the items.
  Result<std::vector<EvalScore>> run(std::span<const ChatItem> items) {
    std::vector<EvalScore> scores;
    while (scores.size() < items.size()) {
      const auto group =
          items.subspan(scores.size(), std::min(settings_.together, items.size() - scores.size()));
      std::vector<EncodedItem> encoded;
      std::vector<EvalScore> found(group.size());
      const bool forced = settings_.perplexity || settings_.kl;
      for (std::size_t i = 0; i < group.size(); ++i) {
        MOESAIC_TRY(encoded.emplace_back(), subject_.encoder.encode(group[i], forced));
        found[i].task = group[i].task;
        found[i].items = 1;
        if (!forced) continue;
        const auto done = force(scores.size() + i, encoded[i], found[i]);
        if (!done) return fail(group[i].where, done.error());
      }
      if (settings_.accuracy) MOESAIC_CHECK(generate(group, encoded, found));
      scores.insert(scores.end(), found.begin(), found.end());
      if (settings_.progress) settings_.progress("model", scores.size());
    }
    return scores;
  }

 private:
  Result<void> force(std::size_t number, const EncodedItem& item, EvalScore& score) {
    if (reference_) {
      if (reference_->tokens[number] != all_tokens(item))
        return fail(Errc::kInvalidArgument, "the reference reads this item as other tokens");
      score.reference_perplexity = reference_->perplexity[number];
    }
    return known_.run(
        item, [&](std::size_t, std::span<const float> logits, std::int32_t token) -> Result<void> {
          log_softmax(logits, log_p_);
          if (settings_.perplexity) score.perplexity.add(log_p_, token);
          if (!reference_) return {};
          row_.resize(reference_->drawable_ids);
          MOESAIC_CHECK(reference_->logits.read(next_, std::as_writable_bytes(std::span(row_))));
          next_ += row_.size() * sizeof(float);
          log_softmax(row_, reference_log_p_);
          score.divergence.add(reference_log_p_, log_p_);
          return {};
        });
  }

  Result<void> generate(std::span<const ChatItem> items, std::span<const EncodedItem> encoded,
                        std::vector<EvalScore>& scores) {
    MOESAIC_TRY(const auto answers,
                answer_items(subject_.model, subject_.encoder, encoded, settings_.max_tokens));
    for (std::size_t i = 0; i < items.size(); ++i) {
      const bool right = is_right(items[i], answers[i]);
      auto& score = scores[i];
      score.right = right ? 1 : 0;
      if (!items[i].reference_correct) continue;
      score.judged = 1;
      score.reference_right = *items[i].reference_correct ? 1 : 0;
      score.same_verdict = *items[i].reference_correct == right ? 1 : 0;
    }
    return {};
  }

  Subject subject_;
  std::optional<ReferenceRun> reference_;
  const EvalSettings& settings_;
  KnownAnswers known_;
  std::uint64_t next_ = 0;  // in the reference's logits
  std::vector<float> row_;
  std::vector<double> log_p_, reference_log_p_;
};

}  // namespace

void EvalScore::add(const EvalScore& other) {
  items += other.items;
  right += other.right;
  judged += other.judged;
  reference_right += other.reference_right;
  same_verdict += other.same_verdict;
  perplexity.add(other.perplexity);
  reference_perplexity.add(other.reference_perplexity);
  divergence.add(other.divergence);
}

Result<EvalReport> evaluate(const ModelOptions& model, const std::optional<ModelOptions>& reference,
                            std::span<const ChatItem> items, const EvalSettings& settings) {
  if (settings.kl && !reference)
    return fail(Errc::kInvalidArgument, "metric kl needs a reference model");
  std::optional<ReferenceRun> reference_run;
  if (settings.kl) {
    MOESAIC_TRY(reference_run, run_reference(*reference, items, settings));
  }
  MOESAIC_TRY(auto subject, load_subject(model, items));
  if (reference_run && reference_run->drawable_ids != subject.encoder.drawable_ids())
    return fail(Errc::kInvalidArgument,
                "the reference has " + std::to_string(reference_run->drawable_ids) +
                    " drawable ids, the model " + std::to_string(subject.encoder.drawable_ids()));
  Evaluation evaluation(std::move(subject), std::move(reference_run), settings);
  MOESAIC_TRY(const auto scores, evaluation.run(items));

  EvalReport report;
  report.all.task = "all";
  for (const auto& score : scores) {
    auto task = std::find_if(report.tasks.begin(), report.tasks.end(),
                             [&](const EvalScore& t) { return t.task == score.task; });
    if (task == report.tasks.end()) {
      task = report.tasks.insert(task, EvalScore{});
      task->task = score.task;
    }
    task->add(score);
    report.all.add(score);
  }
  return report;
}

}  // namespace moesaic
