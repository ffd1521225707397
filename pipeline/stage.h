// The stage engine: a run is a chain of stages; what is already done and still there is not done again.
//
// Key of a stage = SHA-256 over its name, the program's version, its settings, the content of its input files and the keys of the
// stages it stands on. A stage is skipped when the store knows a stage with the same key that ran to its end and every output file
// still has the recorded size and SHA-256. Paths of input files are not part of the key, only names and contents: a moved
// checkpoint counts as the same.
//
// A process may be killed at any moment: the stage it was in is not recorded as done, so the next run starts it again. A body that
// can go on in the middle keeps its partial work in StageContext::work_folder(), which belongs to the key and survives until the
// stage is done.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "pipeline/store.h"

namespace salient::pipeline {

struct StageOutputs {
  std::map<std::string, std::filesystem::path> paths = {};  // name -> a file or a folder (all files in it, recursively)
  Json values = Json::object();                             // small results that later stages and listings read
  std::string message = {};                                 // one line for the listing: "108 texts, 12034 tokens"
  // Names of files that may change afterwards, as what is measured of an artifact is added to them: they only have to be there.
  std::set<std::string> open = {};
};

class StageContext;

struct Stage {
  std::string name;
  std::vector<std::string> after = {};  // names of stages before it in the list
  Json settings = Json::object();       // everything that changes the outputs and is no file
  // Name -> path. A folder stands for the regular files directly in it, hidden ones left out. A path that does not exist: not
  // found.
  std::map<std::string, std::filesystem::path> input_files = {};
  std::function<StageOutputs(StageContext&)> body;
};

struct StageOptions {
  std::string version = SALIENT_VERSION;
  std::function<void(const std::string& line)> on_message = {};  // what the user should see; default: log_info
  std::function<void(int64_t run_id)> on_recorded = {};          // the store has the run's begin, or the end of one more stage
};

// What a body gets. Valid while it runs.
class StageContext {
 public:
  int64_t run_id() const { return run_id_; }
  const std::string& key() const { return key_; }
  Store& store() { return store_; }
  // Of a stage in `after`, directly or through others. Errors: internal, when there is no such stage or output.
  const std::filesystem::path& output(std::string_view stage, std::string_view name) const;
  const Json& value(std::string_view stage, std::string_view name) const;
  // <store folder>/work/<stage>-<first 16 digits of the key>, made on the first call; removed when the stage is done.
  std::filesystem::path work_folder();

 private:
  friend class StageEngine;
  StageContext(Store& store, int64_t run_id, std::string name, std::string key, const std::map<std::string, StageOutputs>& outputs)
      : store_(store), run_id_(run_id), name_(std::move(name)), key_(std::move(key)), outputs_(outputs) {}

  Store& store_;
  int64_t run_id_;
  std::string name_;
  std::string key_;
  const std::map<std::string, StageOutputs>& outputs_;
};

struct PlannedStage {
  std::string name;
  std::string key;
  bool runs = false;
  std::string reason;  // "up to date", "never done", "settings.bits changed: 4 -> 3", "output 'model' is missing: ...", ...
  Json inputs;         // what the key is made of
};

// What --dry-run prints: decides for each stage as run_stages would. `run_name`: reasons compare with the last run of this name.
// Errors: internal (a name twice, `after` names a stage that is not before it), not found (an input file), io.
std::vector<PlannedStage> plan_stages(Store& store, std::string_view run_name, const std::vector<Stage>& stages,
                                      const StageOptions& options = {});

struct RunOutcome {
  int64_t run_id = 0;
  std::map<std::string, StageOutputs> outputs;  // by stage, skipped ones included
  int64_t stages_run = 0;
  int64_t stages_skipped = 0;
};

// Records a run, works through the stages in order and finishes the run as "done", or as "failed" ("interrupted" when it was
// cancelled) with the error, which is thrown again with "stage <name>" as context. When another process works on a stage with the
// same key, waits for it and takes its result.
// Errors: those of plan_stages and of the bodies; internal, when a body names an output that is not there.
RunOutcome run_stages(Store& store, std::string_view run_name, const Json& config, const std::vector<Stage>& stages,
                      const StageOptions& options = {});

}  // namespace salient::pipeline
