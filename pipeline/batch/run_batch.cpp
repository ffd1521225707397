#include "pipeline/batch/run_batch.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <optional>
#include <set>

#include "common/cancellation.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/text.h"
#include "eval/lm_eval_results.h"
#include "eval/run_health.h"
#include "eval/verdict.h"
#include "pipeline/batch/held_base.h"
#include "pipeline/current_error.h"
#include "pipeline/evaluation_records.h"
#include "pipeline/hashed_model.h"
#include "pipeline/measured_quality.h"
#include "pipeline/model_card.h"
#include "pipeline/state_cache.h"
#include "pipeline/work_folder.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr std::chrono::seconds kLockPoll{1};

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

// The same files and arguments would give the same error.
bool may_pass_next_time(const Error& error) {
  return error.kind() != ErrorKind::kInvalidArgument && error.kind() != ErrorKind::kUnsupported &&
         error.kind() != ErrorKind::kCheckFailed;
}

class BatchRunner {
 public:
  BatchRunner(Store& store, std::vector<PlannedEvaluation> plan, const BatchSettings& settings, StoredResults& results,
              const BatchEvents& events)
      : store_(store), settings_(settings), results_(results), events_(events) {
    for (PlannedEvaluation& planned : plan) {
      ModelOutcome& outcome = outcomes_.emplace_back();
      outcome.planned = std::move(planned);
      outcome.reason = outcome.planned.reason;
      switch (outcome.planned.state) {
        case PlannedState::kEvaluate: queue_.push_back(outcomes_.size() - 1); break;
        case PlannedState::kUpToDate: outcome.state = OutcomeState::kUpToDate; break;
        case PlannedState::kSkipped: outcome.state = OutcomeState::kSkipped; break;
        case PlannedState::kFailed: outcome.state = OutcomeState::kFailed; break;
      }
    }
  }

  void run(const std::string& name) {
    if (queue_.empty()) return;
    total_ = queue_.size();
    Json config = {{"models", Json::array()}};
    for (const size_t i : queue_) config["models"].push_back(outcomes_[i].planned.model.path.string());
    run_id_ = store_.begin_run(name, config, SALIENT_VERSION);
    try {
      work();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kCancelled) throw;
      // The run reads as interrupted, which it is.
      say("stopped; the same command goes on");
      return;
    }
    int64_t failed = 0;
    for (const size_t i : queue_) failed += outcomes_[i].state == OutcomeState::kFailed;
    store_.finish_run(run_id_, failed == 0 ? "done" : "failed",
                      failed == 0 ? "" : fmt::format("{} of {} models failed", failed, total_));
  }

  std::vector<ModelOutcome> take() { return std::move(outcomes_); }

 private:
  void work() {
    std::vector<size_t> turn = queue_;
    for (int64_t attempt = 0; !turn.empty() && attempt <= settings_.retries; ++attempt) {
      std::vector<size_t> failed;
      for (const size_t i : turn) {
        if (attempt > 0) say(fmt::format("{}: tried again", outcomes_[i].planned.model.label));
        if (attempt_one(i)) failed.push_back(i);
      }
      while (!elsewhere_.empty()) wait_for_others(failed);
      turn = std::move(failed);
    }
    bases_.release();
  }

  // True where another attempt may end otherwise.
  bool attempt_one(size_t i) {
    ModelOutcome& outcome = outcomes_[i];
    const std::string& label = outcome.planned.model.label;
    const std::optional<Store::KeyLock> lock = store_.try_lock_key(lock_key(outcome.planned));
    if (!lock) {
      elsewhere_.push_back(i);
      if (told_.insert(i).second)
        say(fmt::format("{}: another process evaluates it; its results are taken when they are there", label));
      return false;
    }
    if (!settings_.fresh && outcome.attempts == 0 && has_been_done(outcome)) {
      outcome.state = OutcomeState::kUpToDate;
      outcome.reason = "evaluated by another process";
      ++finished_;
      say(fmt::format("{}: {}", label, outcome.reason));
      return false;
    }
    check_cancelled();
    const int64_t stage =
        store_.begin_stage(run_id_, "evaluate:" + label, outcome.planned.model_hash, stage_inputs(outcome.planned));
    const double started = now();
    ++outcome.attempts;
    std::optional<Error> error;
    try {
      evaluate(outcome);
    } catch (...) {
      error = current_error();
      if (error->kind() == ErrorKind::kCancelled) {
        if (events_.end_of_progress) events_.end_of_progress();
        throw;
      }
      outcome.state = OutcomeState::kFailed;
      outcome.reason = line_of(*error);
    }
    if (events_.end_of_progress) events_.end_of_progress();
    outcome.seconds = now() - started;
    store_.finish_stage(stage, outcome.state == OutcomeState::kFailed ? "failed" : "done", Json::object(), outcome.seconds,
                        outcome.reason);
    ++finished_;
    say(fmt::format("[{}/{}] {}: {} after {}{}{}", std::min(finished_, total_), total_, label, to_string(outcome.state),
                    human_duration(outcome.seconds), outcome.reason.empty() ? "" : ": ", outcome.reason));
    const bool again = error && may_pass_next_time(*error);
    if (again) --finished_;
    return again;
  }

  void evaluate(ModelOutcome& outcome) {
    const PlannedEvaluation& planned = outcome.planned;
    if (const std::string why = why_not_now(planned); !why.empty()) {
      outcome.state = OutcomeState::kSkipped;
      outcome.reason = why;
      return;
    }
    const eval::Evaluation evaluation = planned.serves_as_base && planned.model.original && !planned.pairing.base
                                            ? evaluate_base(planned)
                                            : evaluate_model(planned);
    if (const std::optional<Error> broken = eval::broken_error(evaluation)) throw Error(*broken);
    outcome.state = OutcomeState::kDone;
    outcome.reason = eval::verdict(evaluation);
  }

  std::string why_not_now(const PlannedEvaluation& planned) const {
    if (settings_.memory) return "";  // the plan has seen to it
    uint64_t available = available_memory_bytes();
    if (available == 0) return "";  // not known
    if (planned.pairing.base && bases_.holds(*planned.pairing.base, planned.base_hash)) available += planned.memory.base;
    return why_too_large(planned.memory, available);
  }

  // Alone, with the copy that the others will be compared with.
  eval::Evaluation evaluate_base(const PlannedEvaluation& planned) {
    HeldBase& held =
        bases_.hold(store_, planned.model.path, planned.model_hash, model_options(settings_, planned.model), settings_.fresh);
    eval::EvaluationOptions options = options_of(planned);
    options.journal = &held.journal;
    eval::Evaluation evaluation = eval::evaluate(held.model, nullptr, requests_of(planned), options);
    held.remember(evaluation.model);
    keep(planned, evaluation, held.model, nullptr);
    return evaluation;
  }

  eval::Evaluation evaluate_model(const PlannedEvaluation& planned) {
    HeldBase* base = nullptr;
    if (planned.pairing.base) {
      eval::LanguageModelOptions of_base = base_options(settings_);
      of_base.name = last_part(planned.pairing.base_label);
      base = &bases_.hold(store_, *planned.pairing.base, planned.base_hash, of_base, settings_.fresh);
    }
    const eval::LanguageModel model =
        load_hashed_model(store_, planned.model.path, model_options(settings_, planned.model), planned.model_hash).model;
    const eval::RequestJournal journal = make_journal(store_, planned.model_hash, model, settings_.fresh);
    eval::EvaluationOptions options = options_of(planned);
    options.journal = &journal;
    options.base_journal = base != nullptr ? &base->journal : nullptr;
    eval::Evaluation evaluation = eval::evaluate(model, base != nullptr ? &base->model : nullptr, requests_of(planned), options,
                                                 base != nullptr && base->known ? &*base->known : nullptr);
    if (evaluation.base) base->remember(*evaluation.base);
    keep(planned, evaluation, model, base);
    return evaluation;
  }

  static std::string last_part(const std::string& label) { return label.substr(label.rfind('/') + 1); }

  eval::EvaluationOptions options_of(const PlannedEvaluation& planned) {
    eval::EvaluationOptions options = settings_.options;
    options.throughput = planned.throughput;
    options.observer = [this, label = planned.model.label](const eval::EvaluationProgress& at) {
      check_cancelled();
      if (events_.progress) events_.progress(label, at);
    };
    started_ = now();
    return options;
  }

  std::vector<eval::TaskRequest> requests_of(const PlannedEvaluation& planned) const {
    std::vector<eval::TaskRequest> requests;
    for (const size_t i : planned.missing) requests.push_back(settings_.requests[i]);
    return requests;
  }

  void keep(const PlannedEvaluation& planned, const eval::Evaluation& evaluation, const eval::LanguageModel& model,
            const HeldBase* base) {
    const fs::path& path = planned.model.path;
    const EvaluatedModel files{path, planned.model_hash};
    check_unchanged(store_, files, kWhileEvaluated);
    std::optional<EvaluatedModel> stored_base;
    if (base != nullptr) {
      stored_base = EvaluatedModel{base->path, base->hash};
      check_unchanged(store_, *stored_base, kWhileEvaluated);
    }
    record_evaluation(store_, run_id_, evaluation, files, stored_base);
    results_.read_again(path);
    const ResultKey key = result_key(settings_, planned.model, planned.pairing.base, planned.model_hash, planned.base_hash);
    for (const size_t i : planned.missing) {
      if (!results_.find(key, i))
        log_warn("result_not_recognised model={} task={}: the next call evaluates it again", path.string(),
                 settings_.requests[i].task);
    }
    if (!settings_.output_path.empty()) write_results(planned, evaluation, model);
    const bool has_card = fs::is_directory(path) && fs::exists(path / kMetadataFile) && fs::exists(path / kModelCard);
    if (settings_.update_card && has_card) publish_figures(path, quality_figures(evaluation.model));
  }

  void write_results(const PlannedEvaluation& planned, const eval::Evaluation& evaluation, const eval::LanguageModel& model) const {
    const eval::EvaluationOptions& options = settings_.options;
    eval::LmEvalRun run;
    run.model_name = planned.model.label;
    run.model = eval::lm_eval_model(model, options.apply_chat_template);
    run.started = started_;
    run.seconds = now() - started_;
    run.limit = settings_.requests.empty() ? 0 : settings_.requests.front().limit;
    run.fewshot_seed = options.fewshot_seed;
    run.bootstrap_draws = options.bootstrap_draws;
    run.fewshot_as_multiturn = options.fewshot_as_multiturn;
    run.system_instruction = options.system_instruction;
    write_lm_eval_files(settings_.output_path, evaluation, run, settings_.log_samples);
  }

  std::string lock_key(const PlannedEvaluation& planned) const {
    Json key = {{"model", planned.model_hash}, {"base", planned.base_hash}, {"tasks", Json::array()}};
    for (const eval::TaskRequest& request : settings_.requests)
      key["tasks"].push_back({request.task, request.limit, request.window});
    return sha256_hex("batch evaluation " + dump_json(key));
  }

  Json stage_inputs(const PlannedEvaluation& planned) const {
    Json tasks = Json::array();
    for (const size_t i : planned.missing) tasks.push_back(settings_.requests[i].task);
    return {{"model", planned.model.path.string()},
            {"base", planned.pairing.base ? planned.pairing.base->string() : ""},
            {"tasks", std::move(tasks)}};
  }

  // Since the plan was made: then nothing of it is missing any more.
  bool has_been_done(ModelOutcome& outcome) const {
    PlannedEvaluation& planned = outcome.planned;
    results_.read_again(planned.model.path);
    const ResultKey key = result_key(settings_, planned.model, planned.pairing.base, planned.model_hash, planned.base_hash);
    std::erase_if(planned.missing, [&](size_t request) { return results_.find(key, request).has_value(); });
    if (planned.throughput) planned.throughput = !results_.find_throughput(key).has_value();
    return planned.missing.empty() && !planned.throughput;
  }

  // One look at each that another process had: its results are there, or whoever had it has given up, or it goes on.
  void wait_for_others(std::vector<size_t>& failed) {
    check_cancelled();
    for (size_t waiting = elsewhere_.size(); waiting > 0; --waiting) {
      const size_t i = elsewhere_.front();
      elsewhere_.pop_front();
      if (attempt_one(i)) failed.push_back(i);
    }
    if (!elsewhere_.empty()) sleep_unless_cancelled(kLockPoll);
  }

  void say(const std::string& line) const {
    if (events_.note) events_.note(line);
  }

  Store& store_;
  const BatchSettings& settings_;
  StoredResults& results_;
  const BatchEvents& events_;
  std::vector<ModelOutcome> outcomes_;
  std::vector<size_t> queue_;
  std::deque<size_t> elsewhere_;
  std::set<size_t> told_;  // that they are elsewhere
  BaseHolder bases_;
  int64_t run_id_ = 0;
  size_t total_ = 0;
  size_t finished_ = 0;
  double started_ = 0;
};

}  // namespace

std::string_view to_string(OutcomeState state) {
  switch (state) {
    case OutcomeState::kDone: return "done";
    case OutcomeState::kUpToDate: return "up to date";
    case OutcomeState::kSkipped: return "skipped";
    case OutcomeState::kFailed: return "failed";
    case OutcomeState::kStopped: return "stopped";
  }
  fail(ErrorKind::kInternal, "OutcomeState {} has no name", static_cast<int>(state));
}

std::vector<ModelOutcome> run_batch(Store& store, const std::string& run_name, std::vector<PlannedEvaluation> plan,
                                    const BatchSettings& settings, StoredResults& results, const BatchEvents& events) {
  StateCache base_states(store);
  BatchRunner runner(store, std::move(plan), settings, results, events);
  runner.run(run_name);
  return runner.take();
}

}  // namespace salient::pipeline
