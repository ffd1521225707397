// Runs evaluation tasks on a model, and on its base beside it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "eval/language_model.h"
#include "eval/result.h"
#include "eval/run_observer.h"

namespace salient::eval {

struct TaskRequest {
  std::string task;            // a name or alias of eval/tasks.h
  std::filesystem::path file;  // perplexity: text, or rows whose "text" fields are joined by blank lines; else rows of the task's layout
  int64_t limit = 0;           // the first documents, or windows of text; 0 = all
  int64_t window = 0;          // perplexity: tokens of a window; 0 = min(2048, max_length)
};

struct EvaluationProgress {
  bool is_base = false;
  std::string task;   // or "throughput"
  std::string phase;  // what is counted: "log-likelihoods", "generations", "windows", "models"
  int64_t done = 0;
  int64_t total = 0;
};

struct EvaluationOptions {
  // Wraps each prompt as a user message in the model's chat template. Off by default, as in lm-evaluation-harness; scores of both are not
  // comparable, so it is part of the settings.
  bool apply_chat_template = false;
  int64_t batch_tokens = 4096;                             // padded tokens of one forward pass
  int64_t generation_cache_bytes = int64_t{1} << 30;       // keys and values of one batch of generations
  int64_t max_new_tokens = 0;                              // 0 = the task's own
  bool throughput = true;
  std::function<void(const EvaluationProgress&)> observer = {};  // may be empty
  // Sees what the model runs (never its base), with the task's name as the source: windows of text, prompts with candidate answers, prompts with
  // what the model answered. Every text once: a second perplexity protocol over the same windows, the probe of squad_v2, checks for NaN and
  // the measurement of speed are not shown. A mixture of experts then runs rows of one length together, which takes longer.
  const RunObserver* run_observer = nullptr;
};

// Results of tasks in the order of the requests. With `base`, both models see the same documents and every metric carries its comparison;
// on perplexity, each model runs once over the windows and the divergence comes from the same pass. `known_base`: results of an earlier
// evaluation of this base; those of the same task, file and settings are taken from there instead of running it again.
//
// Errors: invalid argument (unknown task, window, chat template wanted but missing), not found, corruption (rows: file and line), check
// failed for NaN logits, naming model and document.
Evaluation evaluate(const LanguageModel& model, const LanguageModel* base, const std::vector<TaskRequest>& requests,
                    const EvaluationOptions& options = {}, const ModelResult* known_base = nullptr);

}  // namespace salient::eval
