#include "pipeline/batch/batch_jobs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>

#include "common/hash.h"
#include "common/json.h"
#include "pipeline/launcher/job_files.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

// A label is a path; two labels that differ only in what a job's name cannot have still give two names.
std::string job_name(const std::string& label) {
  std::string name = label;
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '.' && c != '_' && c != '-' && c != '=') c = '+';
  }
  return fmt::format("model-{}-{}", name, sha256_hex(label).substr(0, 6));
}

// What the job is to find out, of data and task definitions as of models.
std::string work_of(const PlannedEvaluation& planned, const StoredResults& results) {
  Json tasks = Json::array();
  for (const size_t i : planned.missing) tasks.push_back(results.facts(i));
  return dump_json({{"model", planned.model_hash}, {"base", planned.base_hash}, {"tasks", tasks}, {"speed", planned.throughput}});
}

// What a job asks of all its models: those that lack the same. Where speed alone is missing, everything is measured, for it is not
// measured without a task; and where a task is a file, whose data could not be named without it.
std::string wanted(const PlannedEvaluation& planned, const BatchSettings& settings) {
  std::vector<std::string> all;
  std::vector<std::string> missing;
  for (const eval::TaskRequest& request : settings.requests) all.push_back(request.task);
  for (const size_t i : planned.missing) missing.push_back(settings.requests[i].task);
  const bool files = std::any_of(all.begin(), all.end(), [](const std::string& task) { return fs::path(task).has_extension(); });
  return fmt::format("{}", fmt::join(missing.empty() || files ? all : missing, ","));
}

}  // namespace

PartJobs batch_jobs(const std::vector<PlannedEvaluation>& plan, const BatchSettings& settings, const StoredResults& results,
                    const fs::path& models, const std::vector<std::string>& words, int64_t most, const fs::path& folder) {
  std::vector<bool> waits;
  for (const PlannedEvaluation& planned : plan) waits.push_back(planned.state == PlannedState::kEvaluate);
  PartJobs result;
  for (const LaunchPart& part : share_out(waits, most)) {
    std::map<std::string, std::vector<size_t>> alike;
    for (const size_t i : part.members) alike[wanted(plan[i], settings)].push_back(i);
    for (const auto& [tasks, members] : alike) {
      std::string name = part.name.empty() ? job_name(plan[members.front()].model.label) : part.name;
      if (alike.size() > 1) name += "-" + sha256_hex(tasks).substr(0, 6);
      LaunchJob job = part_job(name, folder);
      job.command = {own_program().string(), "evaluate-all", fs::absolute(models).lexically_normal().string()};
      job.command.insert(job.command.end(), {"--tasks", tasks});
      job.command.insert(job.command.end(), words.begin(), words.end());
      job.command.insert(job.command.end(), {"--store", job.store.string()});
      std::string key;
      for (const size_t i : members) {
        job.command.insert(job.command.end(), {"--only", plan[i].model.label});
        key += work_of(plan[i], results) + "\n";
      }
      job.key = sha256_hex(key);
      result.jobs.push_back(std::move(job));
      result.members.push_back(members);
    }
  }
  return result;
}

std::vector<ModelOutcome> launched_outcomes(const std::vector<PlannedEvaluation>& before, std::vector<PlannedEvaluation> after,
                                            const PartsLaunch& launched) {
  std::map<fs::path, size_t> evaluated;
  for (size_t i = 0; i < before.size(); ++i) {
    if (before[i].state == PlannedState::kEvaluate) evaluated[before[i].model.path] = i;
  }
  std::vector<ModelOutcome> outcomes;
  for (PlannedEvaluation& planned : after) {
    ModelOutcome& outcome = outcomes.emplace_back();
    outcome.reason = planned.reason;
    const auto member = evaluated.find(planned.model.path);
    switch (planned.state) {
      case PlannedState::kUpToDate:
        outcome.state = member != evaluated.end() ? OutcomeState::kDone : OutcomeState::kUpToDate;
        break;
      case PlannedState::kSkipped: outcome.state = OutcomeState::kSkipped; break;
      case PlannedState::kFailed: outcome.state = OutcomeState::kFailed; break;
      case PlannedState::kEvaluate: {
        outcome.state = OutcomeState::kFailed;
        const auto why = member != evaluated.end() ? launched.given_up.find(member->second) : launched.given_up.end();
        outcome.reason =
            why != launched.given_up.end() ? why->second : "not among what the jobs stored: its files have changed since";
        break;
      }
    }
    outcome.planned = std::move(planned);
  }
  return outcomes;
}

}  // namespace salient::pipeline
