#include "common/engine/shard_fan_out.hpp"

#include <algorithm>
#include <atomic>
#include <bit>

#include "common/base/log.hpp"
#include "common/engine/owner_choice.hpp"
#include "common/transport/failure.hpp"
#include "common/transport/peer_metrics.hpp"

namespace moesaic {
namespace {

using Kind = transport::Event::Kind;

/// A shard whose queue is full is asked again after so long.
constexpr auto kBusy = std::chrono::milliseconds(1);

double seconds(ShardFanOut::Clock::duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

std::chrono::steady_clock::time_point deadline_of(std::uint32_t budget_us) {
  using Clock = std::chrono::steady_clock;
  if (budget_us == 0) return Clock::time_point::max();
  return Clock::now() + std::chrono::microseconds(budget_us);
}

std::uint32_t budget_of(std::chrono::steady_clock::time_point deadline) {
  using Clock = std::chrono::steady_clock;
  if (deadline == Clock::time_point::max()) return 0;
  const auto left = std::chrono::duration_cast<std::chrono::microseconds>(deadline - Clock::now());
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(left.count(), 1, 0xffffffff));
}

ShardFanOut::ShardFanOut(const ModelConfig& config, transport::Endpoint& endpoint,
                         std::shared_ptr<TopologySource> source, FanOutOptions options)
    : config_(config),
      endpoint_(endpoint),
      source_(std::move(source)),
      options_(options),
      topology_(std::make_shared<const Topology>()),
      links_(endpoint),
      metrics_(config) {}

void ShardFanOut::refresh() {
  auto latest = source_->latest();
  if (latest == topology_) return;
  const auto& placement = latest->placement;
  if (placement.epoch != 0 &&
      (placement.layers != config_.layers || placement.experts != config_.experts)) {
    log(LogLevel::kError, "placement " + std::to_string(placement.epoch) + " is for " +
                              std::to_string(placement.layers) + " layers, the model has " +
                              std::to_string(config_.layers) + "; not used");
    return;
  }
  topology_ = std::move(latest);
  const auto gone = links_.use(*topology_);
  load_.resize(links_.count());
  for (const auto shard : gone) lost(shard, "left the placement");
  for (auto& [id, job] : jobs_)
    if (job.stuck) place(job);
  missing_ = missing_shards(topology_->placement, links_.alive());
  report();
}

void ShardFanOut::disconnect() {
  topology_ = std::make_shared<const Topology>();
  links_.use(*topology_);
  reported_ = {};
}

ShardFanOut::JobId ShardFanOut::start(FanOutJob work) {
  const auto id = next_job_++;
  auto& job = jobs_[id];
  job.work = std::move(work);
  for (std::size_t m = 0; m < kModalities; ++m) {
    const auto& choice = job.work.choices[m];
    job.wanted[m] = choice.chosen;
    job.nodes[m].resize(choice.ids.size());
    job.node_count[m].assign(choice.rows.size(), 0);
  }
  place(job);
  return id;
}

cluster::ShardSet ShardFanOut::usable(const Job& job) const {
  auto set = links_.alive();
  for (std::size_t i = 0; i < links_.numbers().size(); ++i)
    if (std::find(job.avoid.begin(), job.avoid.end(), links_.numbers()[i]) != job.avoid.end())
      set &= ~(cluster::ShardSet{1} << i);
  return set;
}

/// Asks for everything that nobody has been asked for; what nobody can be asked for leaves the job
/// stuck.
void ShardFanOut::place(Job& job) {
  if (job.error) return;
  job.stuck = false;
  for (std::size_t m = 0; m < kModalities; ++m)
    // A shard that cannot take the question is avoided and the rest placed again.
    while (!place_pool(job, m, usable(job)))
      if (job.error) return;
  if (job.stuck && !job.avoid.empty())
    job.retry_at = std::min(job.retry_at, Clock::now() + options_.retry);
}

bool ShardFanOut::place_pool(Job& job, std::size_t modality, cluster::ShardSet usable) {
  auto& wanted = job.wanted[modality];
  if (std::all_of(wanted.begin(), wanted.end(), [](std::uint64_t w) { return w == 0; }))
    return true;
  const auto& table = topology_->placement;
  const auto& step = job.work.step;
  if (table.epoch == 0) {
    job.stuck = true;
    return true;
  }
  table_load_.resize(table.shards.size());
  for (std::size_t i = 0; i < table_load_.size(); ++i) table_load_[i] = load_[links_.numbers()[i]];
  const auto first = table.index(step.layer, modality, 0);
  choose_owners(std::span(table.owners).subspan(first, table.experts[modality]), usable, wanted,
                table_load_, step.layer + step.context.number, asked_);
  if (std::any_of(wanted.begin(), wanted.end(), [](std::uint64_t w) { return w != 0; }))
    job.stuck = true;
  const auto rows = wanted.size();
  bool all = true;
  for (std::size_t i = 0; i < table.shards.size(); ++i) {
    const auto masks = std::span<const std::uint64_t>(asked_).subspan(i * rows, rows);
    if (ask(job, modality, i, masks)) continue;
    if (job.error) return false;
    for (std::size_t r = 0; r < rows; ++r) wanted[r] |= masks[r];
    job.avoid.push_back(links_.numbers()[i]);
    all = false;
  }
  return all;
}

/// False: the shard cannot take it now.
bool ShardFanOut::ask(Job& job, std::size_t modality, std::size_t shard_index,
                      std::span<const std::uint64_t> masks) {
  const auto& choice = job.work.choices[modality];
  const std::size_t top_k = config_.experts_per_token;
  Question question;
  ids_.assign(choice.ids.begin(), choice.ids.end());
  for (std::size_t r = 0; r < masks.size(); ++r) {
    question.pairs += static_cast<std::uint64_t>(std::popcount(masks[r]));
    for (std::size_t k = 0; k < top_k; ++k)
      if ((masks[r] >> ids_[r * top_k + k] & 1U) == 0) ids_[r * top_k + k] = kNoExpert;
  }
  if (question.pairs == 0) return true;
  const auto& step = job.work.step;
  question.sent = Clock::now();
  const ExpertCall call{
      step.layer,   static_cast<Modality>(modality), choice.x, choice.rows, ids_, choice.weights,
      choice.chosen};
  auto frame = make_expert_rows(call, question.rows);
  for (const auto row : question.rows) question.asked.push_back(masks[row]);
  frame.sequence = question.sequence = ++sequence_;
  frame.epoch = topology_->placement.epoch;
  frame.attempt = job.attempt;
  frame.budget_us = budget_of(step.context.deadline);
  frame.trace = step.context.trace;
  question.shard = links_.numbers()[shard_index];
  const auto peer = links_.peer(question.shard);
  if (!peer) return false;
  question.peer = *peer;
  if (const auto sent = endpoint_.send(*peer, std::move(frame)); !sent) {
    job.last_failure = links_.name(question.shard) + ": " + sent.error().what;
    if (sent.error().code == Errc::kTooLarge) job.error = sent.error();
    // Its credits come back with its next answer.
    if (sent.error().code == Errc::kOverloaded) job.retry_at = question.sent + kBusy;
    return false;
  }
  question.modality = modality;
  question.version = topology_->version;
  question.timeout = question.sent + options_.question_timeout;
  load_[question.shard] += question.pairs;
  job.many = job.many || (!job.open.empty() && job.open.front().shard != question.shard);
  metrics_.sent(question.shard, links_.name(question.shard), step.layer, modality,
                question.rows.size(), question.pairs, seconds(Clock::now() - question.sent));
  job.open.push_back(std::move(question));
  return true;
}

void ShardFanOut::handle(transport::Event event) {
  if (event.kind == Kind::kWoken) {
    // A job that waits for a shard may find it in a newer topology.
    if (std::any_of(jobs_.begin(), jobs_.end(), [](const auto& j) { return j.second.stuck; }))
      refresh();
    return;
  }
  if (event.kind == Kind::kFrame) return take_answer(std::move(event.frame), event.peer);
  // Questions went to a connection, not to a shard: they are lost with it, whatever else is up.
  if (event.kind == Kind::kDown)
    for (auto& [id, job] : jobs_) {
      for (std::size_t i = job.open.size(); i-- > 0;)
        if (job.open[i].peer == event.peer) {
          metrics_.degraded(job.work.step.context, "shard_lost");
          withdraw(job, i, false, event.detail);
        }
    }
  if (!links_.note(event)) {
    if (event.kind != Kind::kDown) return;
  } else if (event.kind == Kind::kUp) {
    for (auto& [id, job] : jobs_) job.avoid.clear();
  }
  for (auto& [id, job] : jobs_) place(job);
  missing_ = missing_shards(topology_->placement, links_.alive());
  report();
}

void ShardFanOut::lost(ShardLinks::Number shard, const std::string& why) {
  for (auto& [id, job] : jobs_) {
    for (std::size_t i = job.open.size(); i-- > 0;)
      if (job.open[i].shard == shard) withdraw(job, i, false, why);
    place(job);
  }
}

/// Takes a question back; its experts are wanted again.
void ShardFanOut::withdraw(Job& job, std::size_t question, bool avoid, const std::string& why) {
  auto& q = job.open[question];
  for (std::size_t i = 0; i < q.rows.size(); ++i) job.wanted[q.modality][q.rows[i]] |= q.asked[i];
  load_[q.shard] -= q.pairs;
  if (avoid) job.avoid.push_back(q.shard);
  job.last_failure = links_.name(q.shard) + ": " + why;
  ++job.attempt;
  job.open.erase(job.open.begin() + static_cast<std::ptrdiff_t>(question));
}

void ShardFanOut::take_answer(transport::Frame frame, transport::PeerId peer) {
  for (auto& [id, job] : jobs_) {
    const auto it = std::find_if(job.open.begin(), job.open.end(), [&](const Question& q) {
      return q.sequence == frame.sequence && q.peer == peer;
    });
    if (it == job.open.end()) continue;
    const auto now = Clock::now();
    if (frame.type == transport::FrameType::kExpertNodes) {
      if (const auto done = accept(job, *it, std::move(frame))) {
        metrics_.answered(it->shard, seconds(now - it->sent));
        if (job.first_answer == Clock::time_point{}) job.first_answer = now;
        load_[it->shard] -= it->pairs;
        const auto shard = it->shard;
        job.open.erase(it);
        if (job.open.empty() && !job.stuck && job.many)
          metrics_.last(shard, seconds(now - job.first_answer));
      } else {
        log(LogLevel::kError, links_.name(it->shard) + ": " + done.error().what);
        withdraw(job, static_cast<std::size_t>(it - job.open.begin()), true, done.error().what);
      }
    } else {
      const bool stale = frame.type == transport::FrameType::kStale;
      const auto why = stale ? "it serves placement " + std::to_string(frame.epoch) + " by now"
                             : transport::read_failure(frame).what;
      metrics_.degraded(job.work.step.context, stale ? "stale" : "shard_failed");
      withdraw(job, static_cast<std::size_t>(it - job.open.begin()), true, why);
      if (stale) refresh();
    }
    place(job);
    report();
    return;
  }
}

/// Checks that the answer has each asked expert of each row in exactly one node, then keeps it.
Result<void> ShardFanOut::accept(Job& job, const Question& question, transport::Frame frame) {
  const auto form = job.work.step.x.compute;  // of the values of nodes, too
  MOESAIC_TRY(auto nodes, read_expert_nodes(std::move(frame), config_.hidden, form));
  const auto& choice = job.work.choices[question.modality];
  const auto leaves = expert_tree_leaves(config_.experts[question.modality]);
  std::vector<std::uint64_t> missing = question.asked;
  for (std::size_t i = 0; i < nodes.row.size(); ++i) {
    const auto row = nodes.row[i];
    const auto node = nodes.node[i];
    if (row >= missing.size() || node == 0 || node >= 2 * leaves)
      return fail(Errc::kCorrupt, "expert answer: row " + std::to_string(row) + " of " +
                                      std::to_string(missing.size()) + ", node " +
                                      std::to_string(node) + " of " + std::to_string(2 * leaves));
    const auto below = expert_tree_below(node, leaves) & choice.chosen[question.rows[row]];
    if (below == 0 || (below & ~missing[row]) != 0)
      return fail(Errc::kCorrupt, "expert answer: row " + std::to_string(row) + ", node " +
                                      std::to_string(node) + " was not asked for");
    missing[row] &= ~below;
  }
  for (std::size_t row = 0; row < missing.size(); ++row)
    if (missing[row] != 0)
      return fail(Errc::kCorrupt,
                  "expert answer: row " + std::to_string(row) + " lacks experts it was asked for");
  job.answers.push_back(std::move(nodes));
  auto& kept = job.answers.back();
  const std::size_t top_k = config_.experts_per_token;
  const std::size_t bytes = config_.hidden * operand_bytes(form);
  for (std::size_t i = 0; i < kept.row.size(); ++i) {
    const auto row = question.rows[kept.row[i]];
    auto& count = job.node_count[question.modality][row];
    job.nodes[question.modality][row * top_k + count++] = {kept.node[i],
                                                           kept.values.bytes.data() + i * bytes};
  }
  return {};
}

Error ShardFanOut::unavailable(const Job& job) const {
  auto names = missing_;
  for (const auto& q : job.open)
    if (const auto& name = links_.name(q.shard); names.find(name) == std::string::npos)
      names += (names.empty() ? "" : ", ") + name;
  if (names.empty()) names = job.last_failure;
  return {Errc::kExpertUnavailable, "expert shard unavailable: " + names + " (layer " +
                                        std::to_string(job.work.step.layer) + ")"};
}

void ShardFanOut::withdraw_overdue(Job& job, Clock::time_point now) {
  for (std::size_t i = job.open.size(); i-- > 0;) {
    auto& q = job.open[i];
    if (q.timeout > now) continue;
    q.timeout = now + options_.question_timeout;
    cluster::ShardSet others = 0;
    for (std::size_t s = 0; s < links_.numbers().size(); ++s)
      if (links_.numbers()[s] != q.shard) others |= cluster::ShardSet{1} << s;
    others &= usable(job);
    std::uint64_t asked = 0;
    for (const auto mask : q.asked) asked |= mask;
    bool elsewhere = true;
    for (auto rest = asked; rest != 0; rest &= rest - 1)
      elsewhere =
          elsewhere && (topology_->placement.at(job.work.step.layer, q.modality,
                                                static_cast<std::size_t>(std::countr_zero(rest))) &
                        others) != 0;
    if (!elsewhere) continue;
    metrics_.degraded(job.work.step.context, "shard_slow");
    withdraw(job, i, true, "no answer in time");
  }
}

void ShardFanOut::tick(Clock::time_point now) {
  for (auto& [id, job] : jobs_) {
    if (ready(id)) continue;
    const auto& context = job.work.step.context;
    if (now >= context.deadline || (job.stuck && now >= context.patience)) {
      transport::count_expired(transport::FrameType::kExpertRows);
      job.error = unavailable(job);
      metrics_.degraded(context, "shard_unavailable");
      metrics_.dropped(job.work.step.x.rows);
      continue;
    }
    withdraw_overdue(job, now);
    if (job.retry_at <= now) {
      job.retry_at = Clock::time_point::max();
      job.avoid.clear();
    }
    if (job.stuck || job.open.empty()) place(job);
  }
}

ShardFanOut::Clock::time_point ShardFanOut::next_tick() const {
  auto next = Clock::time_point::max();
  for (const auto& [id, job] : jobs_) {
    if (ready(id)) continue;
    const auto& context = job.work.step.context;
    next = std::min({next, context.deadline, job.retry_at});
    if (job.stuck) next = std::min(next, context.patience);
    for (const auto& q : job.open) next = std::min(next, q.timeout);
  }
  return next;
}

bool ShardFanOut::ready(JobId id) const {
  const auto& job = jobs_.at(id);
  return job.error.has_value() || (job.open.empty() && !job.stuck);
}

bool ShardFanOut::stuck(JobId id) const { return jobs_.at(id).stuck; }

Result<void> ShardFanOut::finish(JobId id, const TakeSum& take, ThreadPool& pool) {
  const auto it = jobs_.find(id);
  auto& job = it->second;
  if (job.error) {
    auto error = std::move(*job.error);
    abandon(id);
    return tl::make_unexpected(std::move(error));
  }
  const auto begun = Clock::now();
  const std::size_t hidden = config_.hidden;
  const std::size_t top_k = config_.experts_per_token;
  const auto form = job.work.step.x.compute;
  std::atomic<std::size_t> wrong = 0;
  for (std::size_t m = 0; m < kModalities; ++m) {
    const auto& choice = job.work.choices[m];
    const auto leaves = expert_tree_leaves(config_.experts[m]);
    for_rows(pool, choice.rows.size(), [&](std::size_t i) {
      const auto nodes = std::span(job.nodes[m]).subspan(i * top_k, job.node_count[m][i]);
      const auto left = merge_tree(nodes, choice.chosen[i], leaves, hidden, form);
      if (left != 1 || nodes[0].node != 1) {
        ++wrong;
        return;
      }
      take(choice.rows[i], form, nodes[0].value);
    });
  }
  metrics_.combined(job.work.step.layer, links_.numbers(), seconds(Clock::now() - begun));
  jobs_.erase(it);
  report();
  if (wrong != 0)
    return fail(Errc::kInternal,
                "expert tree: " + std::to_string(wrong) + " rows do not end in the root");
  return {};
}

void ShardFanOut::abandon(JobId id) {
  const auto it = jobs_.find(id);
  if (it == jobs_.end()) return;
  for (const auto& q : it->second.open) load_[q.shard] -= q.pairs;
  jobs_.erase(it);
  report();
}

void ShardFanOut::abandon_all() {
  while (!jobs_.empty()) abandon(jobs_.begin()->first);
}

/// Tells the source what has changed.
void ShardFanOut::report() {
  Reach reach{topology_->version, missing_};
  for (const auto& [id, job] : jobs_)
    for (const auto& q : job.open) reach.adopted = std::min(reach.adopted, q.version);
  if (reach == reported_) return;
  reported_ = reach;
  source_->report(std::move(reach));
}

}  // namespace moesaic
