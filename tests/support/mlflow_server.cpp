#include "support/mlflow_server.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <stdexcept>
#include <thread>

#include "common/error.h"
#include "common/file.h"
#include "support/tiny_server.h"

namespace salient::test {
namespace fs = std::filesystem;
namespace {

// In a process group of its own, as the server has workers. Output goes to `log`.
pid_t spawn(std::vector<std::string> words, const fs::path& log) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("cannot fork");
  if (child > 0) return child;
  ::setpgid(0, 0);
  const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(out, STDERR_FILENO);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

int wait_for(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

std::optional<fs::path> MlflowServer::find_python(const fs::path& sources, std::string& reason) {
  const char* named = std::getenv("SALIENT_TEST_PYTHON");
  const fs::path python = named != nullptr && *named != 0 ? fs::path(named) : sources / ".venv-test/bin/python";
  const std::string hint = "; scripts/test.sh --all installs it, or name a Python that has mlflow: SALIENT_TEST_PYTHON=PYTHON";
  if (!fs::exists(python)) {
    reason = "MLflow is not there: no " + python.string() + hint;
    return std::nullopt;
  }
  const TemporaryFolder folder;
  const std::string script = "import importlib.util, sys; sys.exit(importlib.util.find_spec('mlflow') is None)";
  if (wait_for(spawn({python.string(), "-c", script}, folder.path() / "log")) != 0) {
    reason = "MLflow is not there: " + python.string() + " has no package mlflow" + hint;
    return std::nullopt;
  }
  return python;
}

MlflowServer::MlflowServer(const fs::path& python) {
  ::setenv("MLFLOW_DISABLE_TELEMETRY", "true", 1);
  ::setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false", 1);
  ::setenv("no_proxy", "127.0.0.1", 1);
  const std::string port = std::to_string(free_port());
  url_ = "http://127.0.0.1:" + port;
  const fs::path log = folder_.path() / "log";
  child_ = spawn({python.string(), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1",
                  "--backend-store-uri", "sqlite:///" + (folder_.path() / "mlflow.db").string(), "--artifacts-destination",
                  (folder_.path() / "files").string(), "--serve-artifacts"},
                 log);
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes(5);
  for (;;) {
    try {
      if (http_.send({"GET", url_ + "/health", {}, {}}).status == 200) return;
    } catch (const Error&) {
    }
    const bool has_ended = ::waitpid(child_, nullptr, WNOHANG) != 0;
    if (has_ended || std::chrono::steady_clock::now() > give_up) {
      if (has_ended) child_ = -1;
      stop();
      const std::string text = fs::exists(log) ? read_text_file(log) : "";
      throw std::runtime_error("mlflow server did not start: " + text.substr(text.size() - std::min<size_t>(text.size(), 2000)));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

MlflowServer::~MlflowServer() { stop(); }

void MlflowServer::stop() {
  if (child_ < 0) return;
  ::kill(-child_, SIGTERM);
  for (int i = 0; i < 100; ++i) {
    if (::waitpid(child_, nullptr, WNOHANG) != 0) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  ::kill(-child_, SIGKILL);
  ::waitpid(child_, nullptr, WNOHANG);
  child_ = -1;
}

Json MlflowServer::get(const std::string& target) {
  const HttpResponse answer = http_.send({"GET", url_ + target, {}, {}});
  return parse_json(answer.body, target);
}

Json MlflowServer::post(const std::string& endpoint, const Json& body) {
  const std::string text = dump_json(body);
  return parse_json(http_.send({"POST", url_ + "/api/2.0/mlflow/" + endpoint, text, "application/json"}).body, endpoint);
}

std::vector<Json> MlflowServer::runs(const std::string& experiment) {
  const Json found = get("/api/2.0/mlflow/experiments/get-by-name?experiment_name=" + url_escape(experiment));
  if (!found.contains("experiment")) return {};
  const Json answer =
      post("runs/search", {{"experiment_ids", {found.at("experiment").at("experiment_id")}}, {"max_results", 1000}});
  return answer.value("runs", std::vector<Json>());
}

Json MlflowServer::history(const std::string& run_id, const std::string& key) {
  return get("/api/2.0/mlflow/metrics/get-history?run_id=" + run_id + "&metric_key=" + url_escape(key))
      .value("metrics", Json::array());
}

std::vector<std::string> MlflowServer::files(const std::string& run_id) {
  std::vector<std::string> names;
  for (const Json& file : get("/api/2.0/mlflow/artifacts/list?run_id=" + run_id).value("files", Json::array()))
    names.push_back(file.at("path").get<std::string>());
  return names;
}

std::string MlflowServer::file(const Json& run, const std::string& path) {
  const std::string uri = run.at("info").at("artifact_uri").get<std::string>();
  return http_.send({"GET", url_ + "/api/2.0/mlflow-artifacts/artifacts" + uri.substr(uri.find(":/") + 1) + "/" + path, {}, {}})
      .body;
}

std::map<std::string, Json> values_of(const Json& run, const std::string& kind) {
  std::map<std::string, Json> values;
  for (const Json& entry : run.at("data").value(kind, Json::array()))
    values[entry.at("key").get<std::string>()] = entry.value("value", Json());
  return values;
}

}  // namespace salient::test
