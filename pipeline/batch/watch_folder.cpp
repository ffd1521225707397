#include "pipeline/batch/watch_folder.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <set>

#include "common/cancellation.h"
#include "common/error.h"
#include "common/text.h"
#include "pipeline/batch/completeness.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point time) { return std::chrono::duration<double>(Clock::now() - time).count(); }

// Of every file that can matter to what is listed: a store or logs below the folder change all the time.
void add_model_files(const fs::path& folder, FileStamps& all) {
  static const std::set<std::string> kExtensions = {".json", ".safetensors", ".gguf", ".pt", ".pth", ".ts", ".bin"};
  for (const auto& [file, stamp] : file_stamps(folder)) {
    if (kExtensions.contains(file.extension().string())) all.emplace(file, stamp);
  }
}

FileStamps tree_stamps(const fs::path& folder) {
  FileStamps all;
  std::error_code ignored;
  add_model_files(folder, all);
  const auto options = fs::directory_options::skip_permission_denied | fs::directory_options::follow_directory_symlink;
  for (fs::recursive_directory_iterator it(folder, options, ignored), end; !ignored && it != end; it.increment(ignored)) {
    std::error_code unknown;
    if (!it->is_directory(unknown)) continue;
    const std::string name = it->path().filename().string();
    if (name.starts_with('.') || is_unfinished_name(name) || it.depth() > 32) {  // so deep only a link to a folder above leads
      it.disable_recursion_pending();
      continue;
    }
    add_model_files(it->path(), all);
  }
  return all;
}

class Watcher {
 public:
  Watcher(Store& store, fs::path folder, const BatchSettings& settings, const WatchOptions& options, const BatchEvents& events)
      : store_(store), folder_(std::move(folder)), settings_(settings), options_(options), events_(events) {}

  BatchReport watch() {
    const ModelListing first = list_models(folder_);  // a wrong name is told at once
    say(fmt::format("watching {}: {} models, {} left out", folder_.string(), first.models.size(), first.left_out.size()));
    Clock::time_point busy = Clock::now();
    for (;;) {
      const bool changed = tree_has_changed();
      if (changed || !unsettled_.empty()) {
        const bool worked = look_unless_stopped();
        if (changed || worked) busy = Clock::now();
      }
      if (cancel_requested() || options_.once) break;
      const bool idle = unsettled_.empty() && options_.until_idle_seconds && seconds_since(busy) >= *options_.until_idle_seconds;
      if (idle) break;
      sleep_unless_cancelled(std::chrono::milliseconds(static_cast<int64_t>(1000 * options_.poll_seconds)));
      if (cancel_requested()) break;
    }
    return report();
  }

 private:
  struct Seen {
    FileStamps stamps;
    Clock::time_point since;  // unchanged
  };

  bool tree_has_changed() {
    FileStamps now = tree_stamps(folder_);
    if (looked_ && now == tree_) return false;
    looked_ = true;
    tree_ = std::move(now);
    return true;
  }

  // False also where it was stopped.
  bool look_unless_stopped() {
    try {
      return look();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kCancelled) throw;
      return false;
    }
  }

  // One pass over what is complete. True where something was evaluated.
  bool look() {
    ModelListing listing;
    try {
      listing = list_models(folder_);
    } catch (const Error& error) {
      if (options_.once || error.kind() != ErrorKind::kNotFound) throw;
      say(error.message() + "; looked for again");
      return false;
    }
    left_out_ = listing.left_out;
    for (const LeftOut& entry : left_out_) tell_once(entry);
    std::vector<ListedModel> settled;
    unsettled_.clear();
    for (ListedModel& model : listing.models) {
      if (is_settled(model.path)) {
        settled.push_back(std::move(model));
      } else {
        unsettled_.insert(model.path.string());
        left_out_.push_back({model.path, fmt::format("still changing: taken when its files have not changed for {}",
                                                     human_duration(options_.settle_seconds))});
        tell_once(left_out_.back());
      }
    }
    return evaluate(settled);
  }

  bool is_settled(const fs::path& model) {
    FileStamps stamps = file_stamps(model);
    if (seconds_since_change(stamps) >= options_.settle_seconds) return true;
    Seen& seen = seen_[model.string()];
    if (seen.stamps != stamps) seen = {std::move(stamps), Clock::now()};
    return seconds_since(seen.since) >= options_.settle_seconds;
  }

  bool evaluate(const std::vector<ListedModel>& models) {
    StoredResults results(store_, settings_);
    std::vector<PlannedEvaluation> plan = plan_evaluations(store_, models, settings_, results);
    if (evaluated_once_ && settings_.fresh) forget_done(plan);
    for (PlannedEvaluation& planned : plan) {
      const auto known = given_up_.find(planned.model.path.string());
      if (known == given_up_.end() || planned.state != PlannedState::kEvaluate) continue;
      if (known->second.base_hash != planned.base_hash || known->second.model_hash != planned.model_hash) {
        given_up_.erase(known);
        continue;
      }
      planned.state = known->second.state;
      planned.reason = known->second.reason;
    }
    const bool work =
        std::any_of(plan.begin(), plan.end(), [](const auto& planned) { return planned.state == PlannedState::kEvaluate; });
    std::vector<ModelOutcome> outcomes =
        run_batch(store_, "watch " + folder_.string(), std::move(plan), settings_, results, events_);
    evaluated_once_ = true;
    for (const ModelOutcome& outcome : outcomes) note_failure(outcome);
    for (ModelOutcome& outcome : outcomes) {
      const auto earlier = std::find_if(outcomes_.begin(), outcomes_.end(),
                                        [&](const auto& other) { return other.planned.model.path == outcome.planned.model.path; });
      // What was done before stays done in the report.
      if (earlier != outcomes_.end() && earlier->state == OutcomeState::kDone && outcome.state == OutcomeState::kUpToDate &&
          earlier->planned.base_hash == outcome.planned.base_hash) {
        outcome.state = earlier->state;
        outcome.reason = earlier->reason;
        outcome.seconds = earlier->seconds;
        outcome.attempts = earlier->attempts;
      }
    }
    outcomes_ = std::move(outcomes);
    return work;
  }

  // --fresh: once in the life of this process.
  void forget_done(std::vector<PlannedEvaluation>& plan) const {
    for (PlannedEvaluation& planned : plan) {
      const bool done = std::any_of(outcomes_.begin(), outcomes_.end(), [&](const ModelOutcome& outcome) {
        return outcome.planned.model_hash == planned.model_hash && outcome.planned.base_hash == planned.base_hash &&
               (outcome.state == OutcomeState::kDone || outcome.state == OutcomeState::kUpToDate);
      });
      if (done && planned.state == PlannedState::kEvaluate) planned.state = PlannedState::kUpToDate;
    }
  }

  void note_failure(const ModelOutcome& outcome) {
    const bool gave_up = outcome.planned.state == PlannedState::kEvaluate &&
                         (outcome.state == OutcomeState::kFailed || outcome.state == OutcomeState::kSkipped);
    if (!gave_up) return;
    PlannedEvaluation known = outcome.planned;
    known.state = outcome.state == OutcomeState::kFailed ? PlannedState::kFailed : PlannedState::kSkipped;
    known.reason = outcome.reason;
    given_up_.insert_or_assign(known.model.path.string(), std::move(known));
  }

  BatchReport report() { return {std::move(outcomes_), std::move(left_out_)}; }

  void tell_once(const LeftOut& entry) {
    if (told_.insert(entry.path.string() + "\n" + entry.reason).second)
      say(fmt::format("left out: {}: {}", entry.path.string(), entry.reason));
  }

  void say(const std::string& line) const {
    if (events_.note) events_.note(line);
  }

  Store& store_;
  fs::path folder_;
  const BatchSettings& settings_;
  const WatchOptions& options_;
  const BatchEvents& events_;
  bool looked_ = false;
  bool evaluated_once_ = false;
  FileStamps tree_;
  std::map<std::string, Seen> seen_;
  std::map<std::string, PlannedEvaluation> given_up_;  // by path
  std::set<std::string> unsettled_;
  std::set<std::string> told_;
  std::vector<ModelOutcome> outcomes_;
  std::vector<LeftOut> left_out_;
};

}  // namespace

BatchReport watch_folder(Store& store, const fs::path& folder, const BatchSettings& settings, const WatchOptions& options,
                         const BatchEvents& events) {
  return Watcher(store, folder, settings, options, events).watch();
}

}  // namespace salient::pipeline
