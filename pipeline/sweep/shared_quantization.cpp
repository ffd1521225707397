#include "pipeline/sweep/shared_quantization.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/json.h"
#include "common/memory.h"
#include "pipeline/pad_intermediate.h"
#include "pipeline/quantize_family.h"
#include "pipeline/quantize_session.h"
#include "pipeline/source_files.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr const char* kPointsFile = "points.json";  // keys of the stages of the points that a pass is for

// A point that is to be quantized here.
struct Candidate {
  const RunPlan* plan = nullptr;
  std::string key;  // of its stage
};

const PlannedStage* find_stage(const std::vector<PlannedStage>& stages, std::string_view name) {
  const auto found = std::find_if(stages.begin(), stages.end(), [&](const PlannedStage& stage) { return stage.name == name; });
  return found == stages.end() ? nullptr : &*found;
}

std::string why_alone(const RunPlan& plan) {
  const QuantizeModelOptions& options = plan.job.model;
  if (!options.search_output.empty() || options.awq.search_only) return "save_search: what the searches find goes into one file";
  if (options.awq.search != nullptr) return "search: the scales are given";
  return why_not_shared(models::load_decoder_config(open_source(options.model_folder, options.awq)), options.awq);
}

// The texts of a point, drawn by its stage where it has one; nothing where it names files.
fs::path find_texts(Store& store, const std::string& sweep, const RunPlan& plan, std::map<std::string, fs::path>& known,
                    const RunObserver& observer) {
  const Stage& first = plan.stages.front();
  if (first.name != "calibrate") return plan.job.calibration_file;
  const std::string key = plan_stages(store, plan.config.name, {first}).front().key;
  if (!known.contains(key)) {
    StageOptions options;
    options.on_message = observer.message;
    known[key] =
        run_stages(store, sweep + "/calibration", to_json(plan.config), {first}, options).outputs.at(first.name).paths.at("texts");
  }
  return known.at(key);
}

fs::path work_parent(const Store& store, const std::string& sweep, const RunPlan& plan) {
  const std::string name = sweep + "\n" + plan.model_folder.string() + "\n" + plan.config.runtime.device;
  return fs::absolute(store.path()).lexically_normal().parent_path() / "work" / ("sweep-" + sha256_hex(name).substr(0, 16));
}

// A folder that one process works in.
struct WorkFolder {
  fs::path path;
  Store::KeyLock lock;
};

// The first below `parent` in which no other process works: another one may run the same sweep. What is in it, a stopped one left
// to go on from.
WorkFolder take_work_folder(Store& store, const fs::path& parent) {
  for (int number = 0;; ++number) {
    fs::path path = parent / std::to_string(number);
    if (std::optional<Store::KeyLock> lock = store.try_lock_key(path.string())) return {std::move(path), std::move(*lock)};
  }
}

void write_points(const fs::path& folder, const std::vector<Candidate>& points) {
  Json keys = Json::array();
  for (const Candidate& point : points) keys.push_back(point.key);
  fs::create_directories(folder);
  write_file(folder / kPointsFile, dump_json(keys));
}

// Whether all points are quantized that the pass in this folder was for. One that names none was stopped before it began; one whose
// file is damaged is of no use to another pass either.
bool is_done(const Store& store, const fs::path& folder) {
  Json keys;
  try {
    keys = read_json_file(folder / kPointsFile);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kNotFound || error.kind() == ErrorKind::kCorruption) return true;
    throw;
  }
  return std::all_of(keys.begin(), keys.end(),
                     [&](const Json& key) { return !key.is_string() || store.find_done_stage(key.get<std::string>()); });
}

// Points of one model on one device.
class Group {
 public:
  // `parent`: of its work folders. It stays the same when points are added or some are done by others, so that what a stopped sweep
  // left there is found again, and goes in the end.
  Group(Store& store, std::string sweep, fs::path parent, const RunObserver& observer)
      : store_(store), sweep_(std::move(sweep)), parent_(std::move(parent)), observer_(observer) {}

  void add(const Candidate& candidate) { candidates_.push_back(candidate); }

  int64_t run() {
    std::vector<Store::KeyLock> locks;  // of what this process quantizes; the runs take them again
    std::vector<Candidate> mine;
    for (const Candidate& candidate : candidates_) {
      if (std::optional<Store::KeyLock> lock = store_.try_lock_key(candidate.key)) {
        locks.push_back(std::move(*lock));
        mine.push_back(candidate);
      }
    }
    if (mine.size() < 2) return 0;
    const WorkFolder folder = take_work_folder(store_, parent_);
    write_points(folder.path, mine);
    return quantize(mine, folder.path);
  }

 private:
  int64_t quantize(const std::vector<Candidate>& mine, const fs::path& folder) {
    const FreedMemoryKept kept;
    std::map<std::string, fs::path> texts;
    std::vector<PreparedJob> jobs;
    std::set<std::string> said;  // the points tell much the same
    const auto say_once = [&](const std::string& line) {
      if (observer_.message && said.insert(line).second) observer_.message(line);
    };
    jobs.reserve(mine.size());
    for (const Candidate& candidate : mine) {
      try {
        QuantizeJob job = candidate.plan->job;
        job.calibration_file = find_texts(store_, sweep_, *candidate.plan, texts, observer_);
        job.model.source_state = source_state(job.model.model_folder);
        job.model.source_hashes = stored_source_hashes(store_, job.model.model_folder);
        job.model.on_message = say_once;
        jobs.push_back(prepare_job(job));
      } catch (const Error& error) {
        if (error.kind() == ErrorKind::kCancelled) throw;  // anything else its own run meets again, and says
      }
    }
    std::vector<FamilyMember> members;
    for (const PreparedJob& job : jobs) members.push_back({job.model, &job.input.blocks});
    FamilyOptions options;
    options.folder = folder;
    options.on_message = observer_.message;
    if (observer_.progress)
      options.on_progress = [&](int64_t done, int64_t total) {
        observer_.progress("quantize", "blocks of all points", done, total);
      };
    int64_t done = 0;
    for (const FamilyOutcome& outcome : quantize_family(members, options)) done += outcome.result.has_value();
    return done;
  }

  Store& store_;
  std::string sweep_;
  fs::path parent_;
  const RunObserver& observer_;
  std::vector<Candidate> candidates_;
};

}  // namespace

SharedQuantization quantize_shared(Store& store, const std::string& sweep, const std::vector<RunPlan>& plans,
                                   const RunObserver& observer) {
  SharedQuantization result;
  std::set<std::string> reasons;
  std::map<fs::path, Group> groups;  // by their work folders
  for (const RunPlan& plan : plans) {
    const fs::path parent = work_parent(store, sweep, plan);
    result.work.insert(parent);
    const std::vector<PlannedStage> stages = plan_stages(store, plan.config.name, plan.stages);
    const PlannedStage* stage = find_stage(stages, "quantize");
    if (stage == nullptr || !stage->runs) continue;
    if (const std::string why = why_alone(plan); !why.empty()) {
      if (reasons.insert(why).second) result.alone.push_back(why);
      continue;
    }
    groups.try_emplace(parent, store, sweep, parent, observer).first->second.add({&plan, stage->key});
  }
  for (auto& [parent, group] : groups) result.shared += group.run();
  return result;
}

void remove_shared_work(Store& store, const SharedQuantization& shared) {
  std::error_code ignored;
  for (const fs::path& parent : shared.work) {
    std::vector<fs::path> folders;
    for (const auto& entry : fs::directory_iterator(parent, ignored)) folders.push_back(entry.path());
    for (const fs::path& folder : folders) {
      const std::optional<Store::KeyLock> lock = store.try_lock_key(folder.string());
      if (lock && is_done(store, folder)) fs::remove_all(folder, ignored);
    }
    fs::remove(parent, ignored);  // where it was the last
  }
}

}  // namespace salient::pipeline
