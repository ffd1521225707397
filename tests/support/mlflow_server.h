// A real `mlflow server` on the loopback device, with its database and files in a temporary folder; and what it has, as a user of
// its REST interface sees it.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/http.h"
#include "common/json.h"
#include "support/temporary_folder.h"

namespace salient::test {

class MlflowServer {
 public:
  // A Python that has mlflow: $SALIENT_TEST_PYTHON, else .venv-test/bin/python of the sources (scripts/test.sh --all makes it).
  // `reason`: why there is none.
  static std::optional<std::filesystem::path> find_python(const std::filesystem::path& sources, std::string& reason);

  // Returns when it answers. Errors: std::runtime_error, after five minutes or when it ended, with the end of its log.
  explicit MlflowServer(const std::filesystem::path& python);
  ~MlflowServer();
  MlflowServer(const MlflowServer&) = delete;
  MlflowServer& operator=(const MlflowServer&) = delete;

  const std::string& url() const { return url_; }

  // Of an experiment; empty when there is no such.
  std::vector<Json> runs(const std::string& experiment);
  // Everything that was ever told of a figure.
  Json history(const std::string& run_id, const std::string& key);
  std::vector<std::string> files(const std::string& run_id);
  std::string file(const Json& run, const std::string& path);
  Json post(const std::string& endpoint, const Json& body);

 private:
  void stop();
  Json get(const std::string& target);

  TemporaryFolder folder_;
  std::string url_;
  pid_t child_ = -1;
  HttpClient http_;
};

// {"key": value} of a run's "params", "tags" or "metrics".
std::map<std::string, Json> values_of(const Json& run, const std::string& kind);

}  // namespace salient::test
