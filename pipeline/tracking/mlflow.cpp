#include "pipeline/tracking/mlflow.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>

#include "common/error.h"
#include "common/hash.h"
#include "common/text.h"
#include "pipeline/tracking/sinks.h"
#include "pipeline/tracking/tracking_facts.h"

namespace salient::pipeline {
namespace {

// What one log-batch request may hold.
constexpr size_t kMostMetrics = 1000;
constexpr size_t kMostParams = 100;
constexpr size_t kMostTags = 100;
constexpr size_t kMostEntities = 1000;
constexpr size_t kMostBytes = 900'000;
// Longer texts are cut by the server without a word; cut here they are the same when they are sent again.
constexpr size_t kMostKey = 250;
constexpr size_t kMostParam = 6000;  // characters
constexpr size_t kMostTag = 8000;

constexpr const char* kTrackingTag = "salient.tracking_id";
constexpr int kDefaultSeconds = 20;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// What went wrong, as the server says it: MLflow's errors are JSON, those of proxies are not.
std::string reason_of(const HttpResponse& response, std::string* code = nullptr) {
  const Json json = Json::parse(response.body, nullptr, /*allow_exceptions=*/false);
  if (json.is_object() && json.contains("error_code") && json.at("error_code").is_string()) {
    if (code != nullptr) *code = json.at("error_code").get<std::string>();
    const std::string message =
        json.contains("message") && json.at("message").is_string() ? json.at("message").get<std::string>() : "";
    return shorten(one_line(json.at("error_code").get<std::string>() + ": " + message), 400);
  }
  return shorten(one_line(response.body), 200);
}

// Throws what a status means to the outbox (pipeline/tracking/sinks.h).
void check_status(const HttpResponse& response, const HttpRequest& request) {
  if (response.status >= 200 && response.status < 300) return;
  std::string code;
  const std::string reason = reason_of(response, &code);
  const std::string text =
      fmt::format("{} {}: answered {}{}{}", request.method, request.url, response.status, reason.empty() ? "" : ": ", reason);
  if (response.status >= 300 && response.status < 400) {
    throw Error(ErrorKind::kIo, text)
        .with_hint(fmt::format("the server points to {}: name the address that it wants to be called by", response.location));
  }
  if (response.status == 401 || response.status == 407) {
    throw Error(ErrorKind::kIo, text)
        .with_hint("set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN");
  }
  if (response.status == 403) {
    throw Error(ErrorKind::kIo, text)
        .with_hint(
            "the user has no right to write there, or the server does not know the name it was called by (its --allowed-hosts)");
  }
  const bool is_later = response.status >= 500 || response.status == 408 || response.status == 425 || response.status == 429;
  if (is_later) throw Error(ErrorKind::kIo, text).with_code(kItemFailed);
  if (code.empty())
    throw Error(ErrorKind::kIo, text).with_hint("this does not look like MLflow's REST interface: check the address");
  fail(code == "RESOURCE_DOES_NOT_EXIST" ? ErrorKind::kNotFound : ErrorKind::kInvalidArgument, "{}", text);
}

Json read_answer(const HttpResponse& response, const HttpRequest& request) {
  Json json = Json::parse(response.body, nullptr, /*allow_exceptions=*/false);
  if (json.is_object()) return json;
  throw Error(ErrorKind::kIo,
              fmt::format("{} {}: found '{}', expected JSON", request.method, request.url, shorten(one_line(response.body), 60)))
      .with_hint("this does not look like MLflow's REST interface: check the address");
}

std::string api(const TrackedRun& run, std::string_view endpoint) { return fmt::format("{}/api/2.0/mlflow/{}", run.url, endpoint); }

Json post(HttpClient& http, const TrackedRun& run, std::string_view endpoint, const Json& json) {
  const std::string body = dump_json(json);
  const HttpRequest request{"POST", api(run, endpoint), body, "application/json"};
  const HttpResponse response = http.send(request);
  check_status(response, request);
  return read_answer(response, request);
}

// A text field of an answer. Errors: io, as the server is none that we know.
std::string text_at(const Json& json, const char* pointer) {
  const Json::json_pointer at(pointer);
  if (json.contains(at) && json.at(at).is_string()) return json.at(at).get<std::string>();
  fail(ErrorKind::kIo, "MLflow's answer has no '{}': {}", pointer, shorten(one_line(dump_json(json)), 200));
}

std::optional<std::string> find_experiment(HttpClient& http, const TrackedRun& run) {
  const HttpRequest request{"GET", api(run, "experiments/get-by-name?experiment_name=" + url_escape(run.experiment)), {}, {}};
  const HttpResponse response = http.send(request);
  try {
    check_status(response, request);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kNotFound) return std::nullopt;
    throw;
  }
  const Json answer = read_answer(response, request);
  if (answer.at("experiment").value("lifecycle_stage", "active") == "deleted") {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: the experiment '{}' was deleted", run.url, run.experiment))
        .with_hint("restore it on the server, or name another one in tracking.experiment");
  }
  return text_at(answer, "/experiment/experiment_id");
}

std::string open_experiment(HttpClient& http, const TrackedRun& run) {
  if (auto found = find_experiment(http, run)) return *found;
  try {
    return text_at(post(http, run, "experiments/create", {{"name", run.experiment}}), "/experiment_id");
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kIo) throw;
    if (auto found = find_experiment(http, run)) return *found;  // another process was faster
    throw;
  }
}

Json remote_of(const Json& info, const std::string& experiment) {
  return {{"experiment_id", experiment}, {"run_id", text_at(info, "/run_id")}, {"artifact_uri", text_at(info, "/artifact_uri")}};
}

std::string cut(const std::string& text, size_t most) {
  size_t characters = 0;
  size_t end = 0;  // of the first most - 1 characters
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) continue;
    if (characters + 1 == most) end = i;
    if (++characters > most) return text.substr(0, end) + "…";
  }
  return text;
}

std::string tag_name(const std::string& name) {
  if (name == "user") return "mlflow.user";
  if (name == "description") return "mlflow.note.content";
  return mlflow_key("salient." + name);
}

// log-batch requests, none larger than allowed. Parts of one batch may be sent again after others have failed: nothing is there
// twice.
class BatchWriter {
 public:
  BatchWriter(HttpClient& http, const TrackedRun& run) : http_(http), run_(run) {}

  void param(const std::string& key, const std::string& value) {
    add("params", kMostParams, {{"key", mlflow_key(key)}, {"value", cut(value, kMostParam)}});
  }
  void tag(const std::string& key, const std::string& value) {
    add("tags", kMostTags, {{"key", tag_name(key)}, {"value", cut(value, kMostTag)}});
  }
  void metric(const TrackedMetric& metric) {
    // A bare NaN is no JSON: MLflow stores 0 for it. It takes the words.
    const double value = metric.value;
    const Json number = std::isfinite(value) ? Json(value)
                        : std::isnan(value)  ? Json("NaN")
                                             : Json(value > 0 ? "Infinity" : "-Infinity");
    add("metrics", kMostMetrics, {{"key", mlflow_key(metric.key)}, {"value", number}, {"timestamp", metric.time}, {"step", 0}});
  }
  void flush() {
    if (entities_ == 0) return;
    request_["run_id"] = run_.remote.at("run_id");
    post(http_, run_, "runs/log-batch", request_);
    request_ = Json::object();
    entities_ = 0;
    bytes_ = 0;
  }

 private:
  void add(const char* kind, size_t most, Json entity) {
    const size_t bytes = dump_json(entity).size() + 1;
    const size_t count = request_.contains(kind) ? request_.at(kind).size() : 0;
    if (count == most || entities_ == kMostEntities || bytes_ + bytes > kMostBytes) flush();
    request_[kind].push_back(std::move(entity));
    ++entities_;
    bytes_ += bytes;
  }

  HttpClient& http_;
  const TrackedRun& run_;
  Json request_ = Json::object();
  size_t entities_ = 0;
  size_t bytes_ = 0;
};

void deliver_batch(HttpClient& http, const TrackedRun& run, const OutboxItem& item) {
  const TrackingBatch batch = batch_from_payload(item.payload, item.name);
  BatchWriter writer(http, run);
  for (const auto& [key, value] : batch.params) writer.param(key, value);
  for (const auto& [key, value] : batch.tags) writer.tag(key, value);
  for (const TrackedMetric& metric : batch.metrics) writer.metric(metric);
  writer.flush();
}

std::string escaped_path(std::string_view path) {
  std::string out;
  for (const std::string& part : split(path, '/')) out += (out.empty() ? "" : "/") + url_escape(part);
  return out;
}

std::string content_type(std::string_view path) {
  if (path.ends_with(".html")) return "text/html";
  if (path.ends_with(".json")) return "application/json";
  return "application/octet-stream";
}

// The path of an artifact root below the server's proxy. Only the server can reach stores of other kinds.
std::string proxied_path(const TrackedRun& run) {
  constexpr std::string_view kScheme = "mlflow-artifacts:";
  const std::string uri = run.remote.at("artifact_uri").get<std::string>();
  if (!uri.starts_with(kScheme)) {
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{}: the run's files lie in {}, which MLflow's REST interface does not write to", run.url, uri))
        .with_hint(
            "start the server with --serve-artifacts and --artifacts-destination, and use an experiment made since; figures are "
            "sent all the same");
  }
  std::string_view path = std::string_view(uri).substr(kScheme.size());
  if (path.starts_with("//")) path = path.substr(std::min(path.size(), path.find('/', 2)));  // behind the host
  while (path.starts_with('/')) path.remove_prefix(1);
  return std::string(path);
}

void deliver_file(HttpClient& http, const TrackedRun& run, const OutboxItem& item) {
  const std::string path = escaped_path(proxied_path(run) + "/" + item.name);
  const HttpRequest request{"PUT", fmt::format("{}/api/2.0/mlflow-artifacts/artifacts/{}", run.url, path), item.payload,
                            content_type(item.name)};
  check_status(http.send(request), request);
}

void deliver_status(HttpClient& http, const TrackedRun& run, const OutboxItem& item) {
  const Json status = parse_json(item.payload, item.name);
  const std::string name = require<std::string>(status, "status", item.name);
  Json body = {{"run_id", run.remote.at("run_id")}, {"status", to_upper(name)}};
  if (name != "running") body["end_time"] = require<int64_t>(status, "time", item.name);
  post(http, run, "runs/update", body);
}

}  // namespace

HttpOptions mlflow_http_options() {
  HttpOptions options;
  options.username = variable("MLFLOW_TRACKING_USERNAME");
  options.password = variable("MLFLOW_TRACKING_PASSWORD");
  if (options.username.empty()) options.bearer_token = variable("MLFLOW_TRACKING_TOKEN");
  options.ca_file = variable("MLFLOW_TRACKING_SERVER_CERT_PATH");
  const std::string insecure = to_upper(variable("MLFLOW_TRACKING_INSECURE_TLS"));
  options.verify_tls = insecure != "TRUE" && insecure != "1";
  const int seconds = std::atoi(variable("MLFLOW_HTTP_REQUEST_TIMEOUT").c_str());
  options.timeout = std::chrono::seconds(seconds > 0 && seconds <= 3600 ? seconds : kDefaultSeconds);
  return options;
}

Json mlflow_open_run(HttpClient& http, const TrackedRun& run) {
  const std::string experiment = open_experiment(http, run);
  // An earlier attempt may have made it, and its answer have been lost.
  const Json found = post(http, run, "runs/search",
                          {{"experiment_ids", {experiment}},
                           {"filter", fmt::format("tags.\"{}\" = '{}'", kTrackingTag, run.tracking_id)},
                           {"max_results", 1}});
  if (found.contains("runs") && !found.at("runs").empty()) return remote_of(found.at("runs").at(0).at("info"), experiment);
  const Json tags = Json::array({{{"key", kTrackingTag}, {"value", run.tracking_id}},
                                 {{"key", "mlflow.source.name"}, {"value", "salient"}},
                                 {{"key", "mlflow.source.type"}, {"value", "LOCAL"}}});
  const Json made =
      post(http, run, "runs/create",
           {{"experiment_id", experiment}, {"run_name", cut(run.name, kMostKey)}, {"start_time", run.started}, {"tags", tags}});
  if (!made.contains("run") || !made.at("run").contains("info"))
    fail(ErrorKind::kIo, "{}: runs/create did not answer with a run", run.url);
  return remote_of(made.at("run").at("info"), experiment);
}

void mlflow_deliver(HttpClient& http, const TrackedRun& run, const OutboxItem& item) {
  switch (item.kind) {
    case OutboxKind::kBatch: return deliver_batch(http, run, item);
    case OutboxKind::kFile: return deliver_file(http, run, item);
    case OutboxKind::kStatus: return deliver_status(http, run, item);
  }
}

std::string mlflow_link(const TrackedRun& run) {
  if (run.remote.empty()) return {};
  return fmt::format("{}/#/experiments/{}/runs/{}", run.url, run.remote.at("experiment_id").get<std::string>(),
                     run.remote.at("run_id").get<std::string>());
}

std::string mlflow_key(std::string_view name) {
  std::string key;
  bool is_changed = false;
  for (const std::string& part : split(name, '/')) {
    // Names are taken for paths there, and must be the only spelling of them.
    if (part.empty() || part == "." || part == "..") {
      is_changed = true;
      continue;
    }
    if (!key.empty()) key += '/';
    for (const char c : part) {
      const bool is_allowed =
          std::isalnum(static_cast<unsigned char>(c)) != 0 || std::string_view("_-.: ").find(c) != std::string_view::npos;
      key += is_allowed ? c : c == ',' ? '.' : '_';
      is_changed = is_changed || !(is_allowed || c == ',');
    }
  }
  if (!is_changed && key.size() <= kMostKey) return key;
  const std::string digits = "_" + sha256_hex(name).substr(0, 6);
  return key.substr(0, kMostKey - digits.size()) + digits;
}

}  // namespace salient::pipeline
