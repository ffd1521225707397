// Results in the form of lm-evaluation-harness 0.4.13: its results file, evaluator_utils.EvalAcc and loggers/evaluation_tracker.py.
// Programs that read its files read these.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "common/json.h"
#include "eval/evaluate.h"

namespace salient::eval {

// What the file says of the model and of how it was run; kept of the model itself, which need not be in memory any longer.
struct LmEvalRun {
  std::string model_name;       // as the user called it: a path, or org/name
  Json model = Json::object();  // of lm_eval_model
  double started = 0;           // seconds since 1970
  double seconds = 0;
  int64_t limit = 0;  // 0 = all
  uint64_t fewshot_seed = 0;
  int64_t bootstrap_draws = 0;
  bool fewshot_as_multiturn = false;
  std::string system_instruction;
};

// {"tokenizer_pad_token": [text, id], "tokenizer_eos_token", "tokenizer_bos_token", "eot_token_id", "max_length", "chat_template",
// "chat_template_sha", "dtype", "device"}; the template only where it is applied.
Json lm_eval_model(const LanguageModel& model, bool apply_chat_template);

// lm-eval's keys: results, groups, group_subtasks, configs, versions, n-shot, higher_is_better, n-samples, config, date,
// task_hashes (of `hashes`: task -> lm_eval_task_hash) and so on; and "salient": to_json(evaluation). Metrics of tasks of windows
// (perplexity) stand there under our names. What does not exist here is null, "" or "N/A", as lm-eval writes it; "lm_eval_version"
// is that of the form.
Json lm_eval_results(const Evaluation& evaluation, const LmEvalRun& run, const Json& hashes = Json::object());

// A name as part of a path: each run of the characters "<>:/|\?*[] becomes "__".
std::string lm_eval_file_name(std::string_view model_name);

// Makes the folder that write_lm_eval_files will write into, and tries whether it can: before hours of work, not after. Errors: io,
// invalid argument.
void check_lm_eval_path(const std::filesystem::path& path, std::string_view model_name);

// Writes FOLDER/<model>/results_<time>.json and, with `samples`, samples_<task>_<time>.jsonl beside it (a second request of one
// task: samples_<task>_2_<time>.jsonl); a `path` that ends in .json gives <stem>_<time>.json and samples beside that. The time is
// UTC, "2025-01-31T08-30-00.000000". Gives the results file. Errors: io; those of lm_eval_samples.
std::filesystem::path write_lm_eval_files(const std::filesystem::path& path, const Evaluation& evaluation, const LmEvalRun& run,
                                          bool samples);

}  // namespace salient::eval
