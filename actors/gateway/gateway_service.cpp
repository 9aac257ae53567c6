#include "actors/gateway/gateway_service.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <utility>

#include "actors/gateway/admission.hpp"
#include "actors/gateway/prompt_builder.hpp"
#include "actors/gateway/request_flow.hpp"
#include "actors/gateway/request_metrics.hpp"
#include "actors/gateway/request_span.hpp"
#include "actors/gateway/work_queue.hpp"
#include "common/api/chat_request.hpp"
#include "common/api/completion_request.hpp"
#include "common/base/log.hpp"
#include "common/http/metrics_route.hpp"

namespace moesaic {
namespace {

std::int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

HttpAnswer json_answer(std::string body) {
  return {200, {{"Content-Type", "application/json"}}, std::move(body)};
}

bool is_json(const HttpHeaders& headers) {
  const auto type = headers.find("Content-Type");
  if (!type) return false;
  auto name = std::string(type->substr(0, type->find(';')));
  name.erase(name.find_last_not_of(" \t") + 1);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; });
  return name == "application/json";
}

std::string_view to_string(ReadyState state) {
  switch (state) {
    case ReadyState::kLoading:
      return "loading";
    case ReadyState::kReady:
      return "ready";
    case ReadyState::kDegraded:
      return "degraded";
    case ReadyState::kUnavailable:
      return "unavailable";
    case ReadyState::kDraining:
      break;
  }
  return "draining";
}

/// `fp_` and 16 digits: changes with the build, the model's name and its weights.
std::string fingerprint(const GatewayServiceConfig& config) {
  std::uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a
  for (const auto& text : {config.version.version, config.version.git_id, config.version.build,
                           config.version.model_hash, config.model.name}) {
    for (const unsigned char c : text + '\n') hash = (hash ^ c) * 0x100000001b3U;
  }
  std::string digits;
  for (int i = 0; i < 16; ++i, hash >>= 4U) digits += "0123456789abcdef"[hash & 15U];
  return "fp_" + digits;
}

}  // namespace

class GatewayService::Impl : public std::enable_shared_from_this<Impl> {
 public:
  enum class Endpoint { kChat, kCompletions };

  Impl(GatewayServiceConfig config, GatewayActor gateway, std::function<ReadyState()> ready)
      : version_(version_json(config.version)),
        fingerprint_(fingerprint(config)),
        created_(unix_seconds()),
        model_(finished(std::move(config.model))),
        prompts_(model_),
        gateway_(std::move(gateway)),
        ready_(std::move(ready)),
        tracer_(std::move(config.tracer)),
        admission_(Admission::make(config.max_requests, config.max_request_bytes)),
        queue_(config.max_requests) {}

  void add_routes(HttpRouter& router) {
    const auto self = shared_from_this();
    router.add("POST", "/v1/chat/completions", [self](HttpRequest request, auto responder) {
      self->generate(Endpoint::kChat, std::move(request), std::move(responder));
    });
    router.add("POST", "/v1/completions", [self](HttpRequest request, auto responder) {
      self->generate(Endpoint::kCompletions, std::move(request), std::move(responder));
    });
    router.add("GET", "/v1/models", [self](const HttpRequest&, auto responder) {
      responder->send(json_answer(model_list_json(self->card())));
    });
    router.add("GET", "/v1/models/{id}", [self](const HttpRequest& request, auto responder) {
      responder->send(request.wildcard == self->model_->name ? json_answer(model_json(self->card()))
                                                             : error_answer(self->unknown_model()));
    });
    router.add("GET", "/health", [](const HttpRequest&, auto responder) {
      responder->send(json_answer(R"({"status":"ok"})"));
    });
    router.add("GET", "/ready", [self](const HttpRequest&, auto responder) {
      const bool ready = self->ready_() == ReadyState::kReady;
      auto answer = json_answer(ready ? R"({"ready":true})" : R"({"ready":false})");
      if (!ready) answer.status = 503;
      responder->send(std::move(answer));
    });
    add_metrics_route(router, [self] { return self->ready_() == ReadyState::kReady; });
    router.add("GET", "/version", [self](const HttpRequest&, auto responder) {
      responder->send(json_answer(self->version_));
    });
  }

  /// Before the last reference goes: that may happen on the worker itself.
  void stop() { queue_.stop(); }

 private:
  using Clock = std::chrono::steady_clock;

  struct Prepared {
    AnswerPlan plan;
    PreparedPrompt prompt;
    double timeout_s = 0;
  };

  static std::shared_ptr<const GatewayModel> finished(GatewayModel model) {
    auto& limits = model.limits;
    limits.vocab_size = model.tokenizer->size();
    for (const auto id : {model.config.image_placeholder_id, model.config.video_placeholder_id}) {
      if (id >= 0) limits.placeholder_ids.push_back(id);
    }
    return std::make_shared<const GatewayModel>(std::move(model));
  }

  ModelCard card() const {
    ModelCard card;
    card.id = model_->name;
    card.created = created_;
    card.max_model_len = model_->max_context;
    card.vision = model_->vision;
    card.max_images = model_->limits.max_images;
    card.max_frames = model_->limits.max_frames;
    card.max_image_bytes = model_->limits.max_image_bytes;
    card.max_image_pixels = model_->image_limits.max_pixels;
    card.status = to_string(ready_());
    return card;
  }

  ApiError unknown_model() const {
    return {ApiCode::kModelNotFound, "no such model; this server has \"" + model_->name + "\"",
            "model"};
  }

  ApiError overloaded() const {
    auto error = moesaic::to_api_error(Error{Errc::kOverloaded, ""});
    error.retry_after_s = admission_->retry_after_s();
    return error;
  }

  ApiError draining() const {
    return {ApiCode::kDraining, "the server is shutting down", {}, {}, 1};
  }

  /// What stands in the way of any request.
  std::optional<ApiError> not_ready() const {
    switch (ready_()) {
      case ReadyState::kReady:
      case ReadyState::kDegraded:
        return std::nullopt;
      case ReadyState::kLoading:
        return ApiError{ApiCode::kLoading, "the model is still loading", {}, {}, 1};
      case ReadyState::kUnavailable:
        return moesaic::to_api_error(Error{Errc::kUnavailable, ""});
      case ReadyState::kDraining:
        break;
    }
    return draining();
  }

  ApiError to_api_error(const Error& error) const {
    if (error.code == Errc::kOverloaded) return overloaded();
    const bool stopping = ready_() == ReadyState::kDraining;
    if (error.code == Errc::kUnavailable && stopping) return draining();
    auto told = moesaic::to_api_error(error);
    // The client learns nothing of it: the operator must.
    if (told.code == ApiCode::kInternalError) log(LogLevel::kError, "internal: " + error.what);
    return told;
  }

  static void refuse(Responder& responder, Span& span, const ApiError& error) {
    RequestMetrics::rejected(kind_of(error.code).text);
    set_failed(span, error.code);
    responder.send(error_answer(error));
  }

  /// On the io thread: what can be refused without a look at the body is refused here.
  void generate(Endpoint endpoint, HttpRequest request, std::shared_ptr<Responder> responder) {
    auto span = request_span(tracer_, request, endpoint == Endpoint::kChat, model_->name);
    if (!is_json(request.headers)) {
      return refuse(*responder, span,
                    {ApiCode::kUnsupportedMediaType, "Content-Type must be application/json", {}});
    }
    if (const auto error = not_ready()) return refuse(*responder, span, *error);
    auto ticket = admission_->enter(request.body.size());
    if (!ticket) return refuse(*responder, span, overloaded());

    const auto id = next_id_.fetch_add(1);
    auto& way_back = *responder;
    const auto flow = std::make_shared<RequestFlow>(RequestFlow::Parts{
        std::move(responder), model_->tokenizer, std::move(*ticket),
        [gateway = gateway_, id] { caf::anon_send(gateway, cancel_atom::value, id); },
        [self = shared_from_this()](const Error& error) { return self->to_api_error(error); },
        std::move(span)});
    way_back.on_close([weak = std::weak_ptr(flow)] {
      if (const auto open = weak.lock()) open->client_gone();
    });
    const auto deadline_from = Clock::now();
    const bool queued =
        queue_.post([self = shared_from_this(), flow, endpoint, id, deadline_from,
                     trace = flow->trace(), request_id = request.request_id,
                     body = std::make_shared<const std::string>(std::move(request.body))] {
          auto prepared =
              std::make_shared<ApiResult<Prepared>>(self->prepare(endpoint, *body, trace));
          if (*prepared) (*prepared)->prompt.request.request_id = request_id;
          flow->responder().post([self, flow, id, deadline_from, prepared] {
            self->submit(flow, id, deadline_from, *prepared);
          });
        });
    if (!queued) flow->refuse(overloaded());
  }

  /// On the worker.
  ApiResult<Prepared> prepare(Endpoint endpoint, std::string_view body,
                              const TraceContext& trace) const {
    const auto span = tracer_.start("prepare", SpanKind::kInternal, trace);
    if (endpoint == Endpoint::kCompletions) {
      MOESAIC_TRY(const auto request, parse_completion_request(body, model_->limits));
      MOESAIC_CHECK(check_model(request.options));
      MOESAIC_TRY(auto prompt, prompts_.completion(request));
      return planned(false, request.options, std::move(prompt));
    }
    MOESAIC_TRY(const auto request, parse_chat_request(body, model_->limits));
    MOESAIC_CHECK(check_model(request.options));
    MOESAIC_TRY(auto prompt, prompts_.chat(request));
    return planned(true, request.options, std::move(prompt));
  }

  ApiResult<void> check_model(const GenerationOptions& options) const {
    if (options.model && *options.model != model_->name) {
      return tl::make_unexpected(unknown_model());
    }
    return {};
  }

  Prepared planned(bool chat, const GenerationOptions& options, PreparedPrompt prompt) const {
    Prepared prepared;
    auto& plan = prepared.plan;
    plan.chat = chat;
    plan.head = {(chat ? "chatcmpl-" : "cmpl-") + new_request_id(), unix_seconds(), model_->name,
                 fingerprint_};
    plan.stream = options.stream;
    plan.include_usage = options.include_usage;
    plan.continuous_usage = options.continuous_usage;
    plan.thinking = prompt.thinking;
    plan.stops = options.stop;
    plan.ignored_header = ignored_header(options.ignored);
    plan.prompt_usage.prompt_tokens = static_cast<std::uint32_t>(prompt.request.prompt.size());
    plan.prompt_usage.image_tokens = prompt.image_tokens;
    plan.prompt_usage.video_tokens = prompt.video_tokens;
    prepared.prompt = std::move(prompt);
    prepared.timeout_s = options.timeout_s.value_or(model_->limits.max_timeout_s);
    return prepared;
  }

  /// On the executor of the request's session.
  void submit(const std::shared_ptr<RequestFlow>& flow, std::uint64_t id,
              Clock::time_point deadline_from, ApiResult<Prepared>& prepared) {
    if (!prepared) return flow->refuse(prepared.error());
    if (!flow->begin(std::move(prepared->plan))) return;
    auto job = std::make_shared<GatewayJob>();
    job->request = std::move(prepared->prompt.request);
    job->request.id = id;
    job->request.trace = flow->trace();
    job->request.deadline =
        deadline_from +
        std::chrono::milliseconds(static_cast<std::int64_t>(prepared->timeout_s * 1000));
    job->visuals = std::move(prepared->prompt.visuals);
    job->on_event = [flow](TokenEvent event) {
      flow->responder().post([flow, event = std::move(event)]() { flow->on_event(event); });
    };
    caf::anon_send(gateway_, submit_atom::value, GatewayJobPtr(std::move(job)));
  }

  const std::string version_;
  const std::string fingerprint_;
  const std::int64_t created_;
  const std::shared_ptr<const GatewayModel> model_;
  const PromptBuilder prompts_;
  const GatewayActor gateway_;
  const std::function<ReadyState()> ready_;
  const Tracer tracer_;
  const std::shared_ptr<Admission> admission_;
  std::atomic<std::uint64_t> next_id_{1};
  WorkQueue queue_;  ///< last: its tasks use the others
};

GatewayService::GatewayService(GatewayServiceConfig config, GatewayActor gateway,
                               std::function<ReadyState()> ready)
    : impl_(std::make_shared<Impl>(std::move(config), std::move(gateway), std::move(ready))) {}

GatewayService::~GatewayService() { impl_->stop(); }

void GatewayService::add_routes(HttpRouter& router) { impl_->add_routes(router); }

HttpAnswer GatewayService::refusal(const HttpFault& fault) {
  return error_answer(to_api_error(fault));
}

}  // namespace moesaic
