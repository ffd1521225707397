// Runs evaluation tasks on a model, and on its base beside it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "eval/aggregation.h"
#include "eval/few_shot.h"
#include "eval/language_model.h"
#include "eval/request_journal.h"
#include "eval/result.h"
#include "eval/run_observer.h"
#include "eval/task_data.h"
#include "eval/task_library.h"

namespace salient::eval {

struct TaskRequest {
  std::string task;  // what TaskLibrary::find takes: a task, alias, group, tag or YAML file
  std::filesystem::path
      file;  // perplexity: text, or rows whose "text" fields are joined by blank lines; else of eval/task_data.h's DataSource
  int64_t limit = 0;                                         // the first documents of each task, or windows of text; 0 = all
  int64_t window = 0;                                        // perplexity: tokens of a window; 0 = min(2048, max_length)
  std::map<std::string, std::filesystem::path> splits = {};  // files of single splits, such as "train" for examples
  std::optional<int64_t> num_fewshot = {};                   // instead of what the task says; a task that says 0 keeps it
  std::map<std::string, DataSource> members = {};  // data of single tasks of a group or tag, instead of `file` and `splits`
};
// The data of one of the request's tasks.
DataSource source_of(const TaskRequest& request, const std::string& task);

struct EvaluationProgress {
  bool is_base = false;
  std::string task;   // or "throughput"
  std::string phase;  // what is counted: "log-likelihoods", "generations", "windows", "models"
  int64_t done = 0;
  int64_t total = 0;
};

struct EvaluationOptions {
  // Puts prompts into the model's chat template. Off by default, as in lm-evaluation-harness; scores of both are not comparable, so
  // it is part of the settings.
  bool apply_chat_template = false;
  bool fewshot_as_multiturn = true;     // with a chat template: examples are turns, else part of the one user message
  std::string system_instruction = {};  // before each task's description
  uint64_t fewshot_seed = kFewshotSeed;
  int64_t bootstrap_draws = kBootstrapDraws;
  const TaskLibrary* tasks = nullptr;                 // null: the bundled ones
  int64_t batch_tokens = 2048;                        // of one forward pass: more are no faster, and take more memory
  int64_t generation_cache_bytes = int64_t{1} << 30;  // keys and values of one batch of generations
  int64_t max_new_tokens = 0;                         // 0 = the task's own
  bool throughput = true;
  std::function<void(const EvaluationProgress&)> observer = {};  // may be empty
  // Sees what the model runs (never its base), with the task's name as the source: windows of text, prompts with candidate answers,
  // prompts with what the model answered. Every text once: a second perplexity protocol over the same windows, the probe of
  // squad_v2, checks for NaN and the measurement of speed are not shown. A mixture of experts then runs rows of one length
  // together, which takes longer.
  const RunObserver* run_observer = nullptr;
  // Requests that these have are not run again; what is run is added. Not used for a model that is observed, which has to run.
  const RequestJournal* journal = nullptr;
  const RequestJournal* base_journal = nullptr;
};

// Results of tasks in the order of the requests. With `base`, both models see the same documents and every metric carries its
// comparison; on perplexity, each model runs once over the windows and the divergence comes from the same pass. `known_base`:
// results of an earlier evaluation of this base; those of the same task, file and settings are taken from there instead of running
// it again.
//
// A task in which a model's logits are NaN or infinite is flagged as broken and has no metrics; the others go on
// (eval/run_health.h: broken_error). Errors: invalid argument (unknown task, window, chat template wanted but missing), not found,
// corruption (rows: file and line).
//
// A request for several tasks gives the result of each, then those of the groups that have metrics of their own.
Evaluation evaluate(const LanguageModel& model, const LanguageModel* base, const std::vector<TaskRequest>& requests,
                    const EvaluationOptions& options = {}, const ModelResult* known_base = nullptr);

}  // namespace salient::eval
