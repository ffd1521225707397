#include "pipeline/stage.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <set>
#include <thread>

#include "common/cancellation.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/log.h"
#include "common/text.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr auto kLockPoll = std::chrono::milliseconds(200);

void check_chain(const std::vector<Stage>& stages) {
  std::set<std::string> before;
  for (const Stage& stage : stages) {
    for (const std::string& name : stage.after) {
      if (!before.contains(name)) fail(ErrorKind::kInternal, "stage '{}' stands on '{}', which is not before it", stage.name, name);
    }
    if (!before.insert(stage.name).second) fail(ErrorKind::kInternal, "stage '{}' is there twice", stage.name);
  }
}

// {relative path: SHA-256} of a file (under its own name, "") or of a folder's files.
Json hash_inputs(Store& store, const fs::path& path) {
  if (!fs::exists(path)) fail(ErrorKind::kNotFound, "{}: no such file or folder", path.string());
  if (!fs::is_directory(path)) return store.file_sha256(path);
  Json hashes = Json::object();
  for (const auto& entry : fs::directory_iterator(path)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() && !name.starts_with('.')) hashes[name] = store.file_sha256(entry.path());
  }
  return hashes;
}

Json describe_file(Store& store, const fs::path& file) {
  return {{"bytes", fs::file_size(file)}, {"sha256", store.file_sha256(file)}};
}

// {"path": ..., "files": {relative path: {"bytes", "sha256"}}}, {} for those that may change; a plain file stands under "".
Json describe_output(Store& store, const fs::path& path, const std::set<std::string>& open) {
  Json files = Json::object();
  if (fs::is_directory(path)) {
    for (const auto& entry : fs::recursive_directory_iterator(path)) {
      if (!entry.is_regular_file()) continue;
      const std::string name = entry.path().lexically_relative(path).generic_string();
      files[name] = open.contains(name) ? Json::object() : describe_file(store, entry.path());
    }
  } else {
    files[""] = describe_file(store, path);
  }
  return {{"path", path.string()}, {"files", files}};
}

// Why a recorded output cannot be used any more; nothing when it can.
std::optional<std::string> find_damage(Store& store, const std::string& name, const Json& output) {
  const fs::path root = output.at("path").get<std::string>();
  for (const auto& [relative, recorded] : output.at("files").items()) {
    const fs::path file = relative.empty() ? root : root / relative;
    if (!fs::is_regular_file(file)) return fmt::format("output '{}' is missing: {}", name, file.string());
    if (recorded.empty()) continue;
    const bool is_same = fs::file_size(file) == recorded.at("bytes") && Json(store.file_sha256(file)) == recorded.at("sha256");
    if (!is_same) return fmt::format("output '{}' was changed: {}", name, file.string());
  }
  return std::nullopt;
}

StageOutputs read_outputs(const StageRecord& record) {
  StageOutputs outputs;
  for (const auto& [name, output] : record.outputs.at("paths").items()) outputs.paths[name] = output.at("path").get<std::string>();
  outputs.values = record.outputs.at("values");
  outputs.message = record.message;
  return outputs;
}

// "settings.bits changed: 4 -> 3", for the first of the differences.
std::string describe_change(const Json& before, const Json& now) {
  const Json old_values = before.flatten();
  const Json new_values = now.flatten();
  std::vector<std::string> changes;
  const auto title = [](const std::string& pointer) {  // "/files/model/config.json" -> "files.model.config.json"
    return fmt::format("{}", fmt::join(split(pointer.substr(1), '/'), "."));
  };
  const auto value = [](const Json& json) {
    const std::string text = json.is_string() ? json.get<std::string>() : dump_json(json);
    return text.size() == 64 ? text.substr(0, 8) + "…" : shorten(one_line(text), 40);
  };
  for (const auto& [pointer, current] : new_values.items()) {
    if (pointer.starts_with("/after/")) continue;  // told by the stage itself
    if (!old_values.contains(pointer)) {
      changes.push_back(fmt::format("{} is new: {}", title(pointer), value(current)));
    } else if (old_values[pointer] != current) {
      changes.push_back(fmt::format("{} changed: {} -> {}", title(pointer), value(old_values[pointer]), value(current)));
    }
  }
  for (const auto& [pointer, old] : old_values.items()) {
    if (!pointer.starts_with("/after/") && !new_values.contains(pointer))
      changes.push_back(fmt::format("{} is gone", title(pointer)));
  }
  if (changes.empty()) return {};
  return changes.size() == 1 ? changes[0] : fmt::format("{} (and {} more)", changes[0], changes.size() - 1);
}

fs::path work_path(const Store& store, std::string_view name, std::string_view key) {
  return store.path().parent_path() / "work" / fmt::format("{}-{}", name, key.substr(0, 16));
}

Json stage_inputs(Store& store, const Stage& stage, const std::string& version, const std::map<std::string, PlannedStage>& before) {
  Json inputs = {{"version", version}, {"settings", stage.settings}, {"files", Json::object()}, {"after", Json::object()}};
  for (const auto& [name, path] : stage.input_files) {
    inputs["files"][name] =
        with_context(fmt::format("stage {}: input '{}'", stage.name, name), [&] { return hash_inputs(store, path); });
  }
  for (const std::string& name : stage.after) inputs["after"][name] = before.at(name).key;
  return inputs;
}

PlannedStage plan_stage(Store& store, std::string_view run_name, const Stage& stage, const StageOptions& options,
                        const std::map<std::string, PlannedStage>& before) {
  PlannedStage planned;
  planned.name = stage.name;
  planned.inputs = stage_inputs(store, stage, options.version, before);
  planned.key = sha256_hex(fmt::format("{}\n{}", stage.name, dump_json(planned.inputs)));

  if (const auto done = store.find_done_stage(planned.key)) {
    for (const auto& [name, output] : done->outputs.at("paths").items()) {
      if (const auto damage = find_damage(store, name, output)) {
        planned.runs = true;
        planned.reason = *damage;
        return planned;
      }
    }
    planned.reason = "up to date";
    return planned;
  }

  planned.runs = true;
  const fs::path work = work_path(store, stage.name, planned.key);
  if (fs::is_directory(work) && !fs::is_empty(work)) {
    planned.reason = "was interrupted, goes on";
    return planned;
  }
  const auto last = store.find_last_stage(run_name, stage.name);
  planned.reason = last ? describe_change(last->inputs, planned.inputs) : "never done";
  if (!planned.reason.empty()) return planned;
  for (const std::string& name : stage.after) {
    if (last->inputs.at("after").value(name, "") == planned.inputs.at("after").at(name).get<std::string>()) continue;
    planned.reason = fmt::format("'{}' changed", name);
    return planned;
  }
  planned.reason = "the stages before it changed";
  return planned;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// What a stage or run ends as that ended in this error.
const char* status_of(const std::exception& error) {
  const auto* known = dynamic_cast<const Error*>(&error);
  return known != nullptr && known->kind() == ErrorKind::kCancelled ? "interrupted" : "failed";
}

std::string error_text(const std::exception& error) {
  const auto* known = dynamic_cast<const Error*>(&error);
  if (known != nullptr) return known->code().empty() ? known->message() : fmt::format("{}: {}", known->code(), known->message());
  const std::string text = error.what();  // libtorch's has a back trace behind its first line
  return text.substr(0, text.find('\n'));
}

}  // namespace

const fs::path& StageContext::output(std::string_view stage, std::string_view name) const {
  const auto found = outputs_.find(std::string(stage));
  if (found == outputs_.end())
    fail(ErrorKind::kInternal, "stage '{}' asks for outputs of '{}', which did not run before it", name_, stage);
  const auto path = found->second.paths.find(std::string(name));
  if (path == found->second.paths.end())
    fail(ErrorKind::kInternal, "stage '{}' has no output '{}', which '{}' asks for", stage, name, name_);
  return path->second;
}

const Json& StageContext::value(std::string_view stage, std::string_view name) const {
  const auto found = outputs_.find(std::string(stage));
  if (found == outputs_.end())
    fail(ErrorKind::kInternal, "stage '{}' asks for values of '{}', which did not run before it", name_, stage);
  const auto value = found->second.values.find(std::string(name));
  if (value == found->second.values.end())
    fail(ErrorKind::kInternal, "stage '{}' has no value '{}', which '{}' asks for", stage, name, name_);
  return *value;
}

fs::path StageContext::work_folder() {
  const fs::path folder = work_path(store_, name_, key_);
  std::error_code code;
  fs::create_directories(folder, code);
  if (code) fail(ErrorKind::kIo, "{}: cannot create the folder: {}", folder.string(), code.message());
  return folder;
}

std::vector<PlannedStage> plan_stages(Store& store, std::string_view run_name, const std::vector<Stage>& stages,
                                      const StageOptions& options) {
  check_chain(stages);
  std::vector<PlannedStage> plan;
  std::map<std::string, PlannedStage> before;
  for (const Stage& stage : stages) {
    plan.push_back(plan_stage(store, run_name, stage, options, before));
    before[stage.name] = plan.back();
  }
  return plan;
}

// One run at work.
class StageEngine {
 public:
  StageEngine(Store& store, std::string_view run_name, const StageOptions& options, int64_t run_id)
      : store_(store), run_name_(run_name), options_(options) {
    outcome_.run_id = run_id;
  }

  void work(const Stage& stage) {
    check_cancelled();
    PlannedStage planned = plan_stage(store_, run_name_, stage, options_, planned_);
    if (planned.runs) {
      const Store::KeyLock lock = wait_for_key(stage.name, planned.key);
      planned = plan_stage(store_, run_name_, stage, options_, planned_);  // the other process may have done it
      if (planned.runs) {
        run(stage, planned);
      } else {
        skip(planned);
      }
    } else {
      skip(planned);
    }
    planned_[stage.name] = std::move(planned);
    if (options_.on_recorded) options_.on_recorded(outcome_.run_id);
  }

  RunOutcome take_outcome() { return std::move(outcome_); }

 private:
  void say(const std::string& line) const {
    if (options_.on_message) {
      options_.on_message(line);
    } else {
      log_info("{}", line);
    }
  }

  Store::KeyLock wait_for_key(const std::string& name, const std::string& key) const {
    for (bool told = false;; told = true) {
      if (auto lock = store_.try_lock_key(key)) return std::move(*lock);
      if (!told) say(fmt::format("stage {}: another process works on it, waiting", name));
      check_cancelled();
      std::this_thread::sleep_for(kLockPoll);
    }
  }

  void skip(const PlannedStage& planned) {
    const auto done = store_.find_done_stage(planned.key);
    if (!done) fail(ErrorKind::kInternal, "stage '{}' vanished from the store", planned.name);
    const std::string message =
        done->run_id == outcome_.run_id ? done->message : fmt::format("up to date since run {}", done->run_id);
    const int64_t id = store_.begin_stage(outcome_.run_id, planned.name, planned.key, planned.inputs);
    store_.finish_stage(id, "up_to_date", done->outputs, 0, message);
    outcome_.outputs[planned.name] = read_outputs(*done);
    ++outcome_.stages_skipped;
    say(fmt::format("stage {}: up to date", planned.name));
  }

  void run(const Stage& stage, const PlannedStage& planned) {
    say(fmt::format("stage {}: {}", stage.name, planned.reason));
    const auto start = std::chrono::steady_clock::now();
    const int64_t id = store_.begin_stage(outcome_.run_id, stage.name, planned.key, planned.inputs);
    try {
      StageContext context(store_, outcome_.run_id, stage.name, planned.key, outcome_.outputs);
      StageOutputs outputs = stage.body(context);
      Json record = {{"paths", Json::object()}, {"values", outputs.values}};
      for (const auto& [name, path] : outputs.paths) {
        if (!fs::exists(path)) fail(ErrorKind::kInternal, "output '{}' was not written: {}", name, path.string());
        record["paths"][name] = describe_output(store_, path, outputs.open);
      }
      const double seconds = seconds_since(start);
      store_.finish_stage(id, "done", record, seconds, outputs.message);
      std::error_code ignored;
      fs::remove_all(work_path(store_, stage.name, planned.key), ignored);
      say(fmt::format("stage {}: done in {}{}{}", stage.name, human_duration(seconds), outputs.message.empty() ? "" : ", ",
                      outputs.message));
      outcome_.outputs[stage.name] = std::move(outputs);
      ++outcome_.stages_run;
    } catch (const std::exception& error) {
      try {
        store_.finish_stage(id, status_of(error), Json::object(), seconds_since(start), error_text(error));
      } catch (const Error& second) {  // the first error is the one to tell
        log_warn("store_write_failed reason=\"{}\"", second.message());
      }
      throw;
    }
  }

  Store& store_;
  std::string run_name_;
  const StageOptions& options_;
  std::map<std::string, PlannedStage> planned_;
  RunOutcome outcome_;
};

RunOutcome run_stages(Store& store, std::string_view run_name, const Json& config, const std::vector<Stage>& stages,
                      const StageOptions& options) {
  check_chain(stages);
  const int64_t run_id = store.begin_run(run_name, config, options.version);
  StageEngine engine(store, run_name, options, run_id);
  try {
    if (options.on_recorded) options.on_recorded(run_id);
    for (const Stage& stage : stages) with_context(fmt::format("stage {}", stage.name), [&] { engine.work(stage); });
    store.finish_run(run_id, "done");
  } catch (const std::exception& error) {
    try {
      store.finish_run(run_id, status_of(error), error_text(error));
    } catch (const Error& second) {
      log_warn("store_write_failed reason=\"{}\"", second.message());
    }
    throw;
  }
  return engine.take_outcome();
}

}  // namespace salient::pipeline
