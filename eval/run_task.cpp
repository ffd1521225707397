#include "eval/run_task.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

#include "common/error.h"
#include "common/hash.h"
#include "eval/generate_until.h"
#include "eval/prepared_task.h"
#include "eval/response_filters.h"
#include "eval/rolling_loglikelihood.h"
#include "eval/score_document.h"
#include "eval/task_functions.h"
#include "eval/task_metrics.h"
#include "eval/text_units.h"

namespace salient::eval {
namespace {

using Clock = std::chrono::steady_clock;

// What the steps of one task share.
class TaskRun {
 public:
  TaskRun(const LanguageModel& model, const TaskDefinition& task, const TaskRequest& request, const EvaluationOptions& options,
          const PhaseProgress& progress)
      : model_(model), task_(task), options_(options), progress_(progress), prepared_(prepare_task(model, task, request, options)) {
    result_.task = task.name;
    result_.file = prepared_.data.file.string();
    result_.data_sha256 = prepared_.data.sha256;
    result_.settings = prepared_.settings;
    result_.settings["model"] = describe(model);
    result_.output_type = task.output_type;
    result_.config = task.config;
    result_.rows = static_cast<int64_t>(prepared_.data.rows.size());
    result_.documents.resize(prepared_.documents.size());
    for (size_t i = 0; i < result_.documents.size(); ++i) {
      DocumentRecord& record = result_.documents[i];
      record.line = prepared_.data.line_numbers[i];
      record.row = *prepared_.documents[i].row;
      record.target = prepared_.targets[i];
      record.question = prepared_.questions[i];
      record.prompts = prepared_.prompts[i];
    }
    number_clusters();
    if (!prepared_.prompts.empty()) result_.first_prompt = prepared_.prompts.front().front();
  }

  TaskResult run() {
    switch (task_.output_type) {
      case OutputType::kMultipleChoice: run_choices(); break;
      case OutputType::kLoglikelihood: run_continuations(); break;
      case OutputType::kLoglikelihoodRolling: run_texts(); break;
      case OutputType::kGenerateUntil: run_generations(); break;
      case OutputType::kTokenWindows: fail(ErrorKind::kInternal, "{}: windows of text are no documents", task_.name);
    }
    add_metrics(task_, options_.bootstrap_draws, result_);
    return std::move(result_);
  }

  // A result that says that the task could not be scored.
  TaskResult broken(const Error& error) {
    result_.documents.clear();
    result_.flags = {{FlagKind::kNanLogits, 1, std::nullopt, error.message()}};
    return std::move(result_);
  }

 private:
  // Documents with equal values in task.cluster_column get one number.
  void number_clusters() {
    if (task_.cluster_column.empty()) return;
    std::map<std::string, int64_t> numbers;
    for (size_t i = 0; i < result_.documents.size(); ++i) {
      const Json& row = *prepared_.documents[i].row;
      if (!row.contains(task_.cluster_column)) continue;
      const auto next = static_cast<int64_t>(numbers.size()) + 1;
      result_.documents[i].cluster = numbers.try_emplace(dump_json(row.at(task_.cluster_column)), next).first->second;
    }
  }

  const std::string& where(size_t i) const { return prepared_.documents[i].where; }

  LikelihoodOptions likelihood_options(bool watched) const {
    LikelihoodOptions likelihood;
    likelihood.batch_tokens = options_.batch_tokens;
    likelihood.progress = [this](int64_t done, int64_t total) { progress_("log-likelihoods", done, total); };
    if (watched) likelihood.watch = {options_.run_observer, task_.name};
    likelihood.journal = options_.journal;
    return likelihood;
  }

  // Scores by the task's own function, where it has one; its names get the filter's behind them.
  bool score_by_function(size_t i, const Response& response, const std::string& filter) {
    if (task_.process_results.empty()) return false;
    for (Score& score : find_process_results(task_.process_results)(*prepared_.documents[i].row, response, where(i))) {
      score.metric = metric_key(score.metric, filter);
      result_.documents[i].scores.push_back(std::move(score));
    }
    return true;
  }

  const std::string& only_filter() const {
    const std::vector<FilterStep>& steps = task_.filters.front().steps;
    const bool plain = task_.filters.size() == 1 &&
                       std::all_of(steps.begin(), steps.end(), [](const FilterStep& s) { return s.function == "take_first"; });
    if (!plain) fail(ErrorKind::kUnsupported, "{}: filter_list: log-likelihoods are no texts to filter", task_.origin);
    return task_.filters.front().name;
  }

  void add_scores(size_t i, std::vector<Score> scores, const std::string& filter) {
    for (Score& score : scores) {
      score.metric = metric_key(score.metric, filter);
      result_.documents[i].scores.push_back(std::move(score));
    }
  }

  // f1 and mcc compare one right class with one chosen class; f1 is of two classes.
  void check_classes(size_t i, const Gold& gold, size_t choices, bool f1) const {
    if (gold.choices.size() != 1)
      fail(ErrorKind::kCorruption, "{}: doc_to_target: found {} answers, expected one for f1 and mcc", where(i),
           gold.choices.size());
    if (f1 && (choices != 2 || gold.choices.front() < 0))
      fail(ErrorKind::kCorruption, "{}: found {} choices, {}, expected two of which one is right: f1 is that of the second",
           where(i), choices,
           gold.choices.front() < 0 ? "none of them right" : fmt::format("right is number {}", gold.choices.front() + 1));
  }

  // A column's name that is no column of the row is a template without variables, and gives itself.
  void check_target(size_t i, const Json& target, const std::vector<std::string>& choices) const {
    if (!task_.process_results.empty()) return;
    const Json& row = *prepared_.documents[i].row;
    const Field& field = task_.doc_to_target;
    const bool is_name = field.kind == Field::Kind::kTemplate && !row.contains(field.text) && target == Json(field.text) &&
                         std::find(choices.begin(), choices.end(), field.text) == choices.end();
    if (!target.is_null() && !is_name) return;
    std::vector<std::string> columns;
    for (const auto& [name, value] : row.items()) columns.push_back(name);
    throw Error(ErrorKind::kCorruption, fmt::format("{}: doc_to_target: found no '{}', expected the right choice; the row has {}",
                                                    where(i), field.text, fmt::join(columns, ", ")))
        .with_hint("name the column with the right choice in the task's doc_to_target, or add it to the data");
  }

  void run_choices() {
    const std::string& filter = only_filter();
    const auto is_asked = [&](std::string_view metric) {
      return std::any_of(task_.metrics.begin(), task_.metrics.end(), [&](const MetricDefinition& m) { return m.name == metric; });
    };
    const bool unconditional = is_asked("acc_mutual_info");
    const bool needs_gold = task_.process_results.empty() && is_asked("brier_score");
    const bool classes = task_.process_results.empty() && (is_asked("f1") || is_asked("mcc"));
    const TaskFormat format = TaskFormat::of_documents(task_);
    std::vector<LikelihoodRequest> requests;
    std::vector<std::vector<std::string>> choices;
    std::vector<Gold> golds;
    for (size_t i = 0; i < prepared_.documents.size(); ++i) {
      const std::vector<std::string>& texts = choices.emplace_back(format.choices(prepared_.documents[i]));
      const Json& target = prepared_.targets[i];
      check_target(i, target, texts);
      const std::string& delimiter = prepared_.choice_delimiter;
      if (prepared_.multiple_inputs) {
        const std::string continuation = target.is_string() ? target.get<std::string>() : dump_json(target);
        for (const std::string& prompt : prepared_.prompts[i]) requests.push_back({prompt, delimiter + continuation, where(i)});
        result_.documents[i].continuations = {delimiter + continuation};
        golds.push_back(gold_choice(format.text(prepared_.documents[i]), texts));
      } else {
        for (const std::string& text : texts) {
          requests.push_back({prepared_.prompts[i].front(), delimiter + text, where(i)});
          result_.documents[i].continuations.push_back(delimiter + text);
        }
        golds.push_back(gold_choice(target, texts));
      }
      if (needs_gold && golds.back().choices.empty())
        fail(ErrorKind::kCorruption, "{}: doc_to_target: found no answer, expected one for brier_score", where(i));
      if (classes) check_classes(i, golds.back(), texts.size(), is_asked("f1"));
      if (unconditional) {
        for (const std::string& text : texts) requests.push_back({"", delimiter + text, where(i)});
      }
      result_.documents[i].gold_choices = golds.back().choices;
      const int64_t gold = golds.back().choices.empty() ? -1 : golds.back().choices.front();
      if (gold >= 0) result_.documents[i].answer = texts[static_cast<size_t>(gold)];
    }
    const auto scores = loglikelihood(model_, requests, likelihood_options(true));
    size_t at = 0;
    for (size_t i = 0; i < choices.size(); ++i) {
      DocumentRecord& record = result_.documents[i];
      std::vector<double> without_context;
      for (size_t c = 0; c < choices[i].size(); ++c, ++at) {
        record.response.log_probs.push_back(scores[at].log_prob);
        record.response.is_greedy.push_back(scores[at].is_greedy ? 1 : 0);
      }
      for (size_t c = 0; unconditional && c < choices[i].size(); ++c) without_context.push_back(scores[at++].log_prob);
      if (score_by_function(i, record.response, filter)) continue;
      record.chance = 1.0 / static_cast<double>(choices[i].size());
      add_scores(i, score_choices(task_.metrics, choices[i], golds[i], record.response, without_context), filter);
    }
  }

  std::string target_text(size_t i) const {
    const Json& target = prepared_.targets[i];
    if (!target.is_string())
      fail(ErrorKind::kCorruption, "{}: doc_to_target: found {}, expected a text", where(i), target.type_name());
    return target.get<std::string>();
  }

  void run_continuations() {
    const std::string& filter = only_filter();
    std::vector<LikelihoodRequest> requests;
    for (size_t i = 0; i < prepared_.documents.size(); ++i) {
      result_.documents[i].answer = target_text(i);
      result_.documents[i].continuations = {result_.documents[i].answer};
      requests.push_back({prepared_.prompts[i].front(), result_.documents[i].answer, where(i)});
    }
    const auto scores = loglikelihood(model_, requests, likelihood_options(true));
    for (size_t i = 0; i < scores.size(); ++i) {
      Response& response = result_.documents[i].response;
      response.log_probs = {scores[i].log_prob};
      response.is_greedy = {static_cast<uint8_t>(scores[i].is_greedy)};
      if (!score_by_function(i, response, filter)) add_scores(i, score_continuation(task_.metrics, response), filter);
    }
  }

  void run_texts() {
    const std::string& filter = only_filter();
    result_.settings["rolling"] = "the prefix token stands before the text, which is encoded under the BOS policy";
    std::vector<RollingText> texts;
    for (size_t i = 0; i < prepared_.documents.size(); ++i) {
      texts.push_back({target_text(i), where(i)});
      result_.documents[i].prompts = {texts.back().text};
    }
    if (!texts.empty()) result_.first_prompt = texts.front().text;
    const auto scores = rolling_loglikelihood(model_, texts, likelihood_options(true));
    for (size_t i = 0; i < scores.size(); ++i) {
      Response& response = result_.documents[i].response;
      response.log_probs = {scores[i].log_prob};
      if (!score_by_function(i, response, filter)) add_scores(i, weighted_scores(scores[i].log_prob, texts[i].text), filter);
    }
  }

  void run_generations() {
    GenerateUntilOptions generation;
    generation.stop = task_.until;
    generation.max_new_tokens = options_.max_new_tokens > 0 ? options_.max_new_tokens : task_.max_new_tokens;
    generation.cache_bytes = options_.generation_cache_bytes;
    generation.watch = {options_.run_observer, task_.name};
    generation.journal = options_.journal;
    generation.progress = [&](int64_t done, int64_t total) { progress_("generations", done, total); };
    result_.settings["max_new_tokens"] = generation.max_new_tokens;
    result_.settings["stop"] = generation.stop;
    if (task_.temperature > 0) {
      generation.temperature = task_.temperature;
      generation.top_p = task_.top_p;
      generation.top_k = task_.top_k;
      generation.seed = derive_seed(options_.fewshot_seed, "generations/" + task_.name);
      result_.settings["sampling"] = {{"temperature", task_.temperature},
                                      {"top_p", task_.top_p},
                                      {"top_k", task_.top_k},
                                      {"repeats", task_.repeats},
                                      {"seed", options_.fewshot_seed}};
    }
    const auto repeats = static_cast<size_t>(task_.repeats);
    const size_t asked = task_.temperature > 0 ? repeats : 1;  // greedy ones would all say the same
    std::vector<GenerationRequest> requests;
    for (size_t i = 0; i < prepared_.documents.size(); ++i)
      requests.insert(requests.end(), asked, {prepared_.prompts[i].front(), where(i)});
    const auto texts = generate_until(model_, requests, generation);
    std::vector<std::vector<std::string>> responses;
    for (size_t i = 0; i < prepared_.documents.size(); ++i) {
      const Generated& first = texts[i * asked];
      result_.documents[i].response.text = first.text;
      result_.documents[i].response.turn = first.turn;
      result_.documents[i].response.hit_limit = first.hit_limit;
      result_.hit_limit += first.hit_limit ? 1 : 0;
      result_.truncated += first.truncated ? 1 : 0;
      std::vector<std::string>& said = responses.emplace_back();
      for (size_t r = 0; r < repeats; ++r) said.push_back(texts[i * asked + r % asked].text);
    }
    if (!task_.probe.empty()) run_probe();
    for (const FilterPipeline& filter : task_.filters)
      score_generations(filter, apply_filters(filter, responses, prepared_.documents));
  }

  void run_probe() {
    std::vector<LikelihoodRequest> requests;
    for (size_t i = 0; i < prepared_.documents.size(); ++i) {
      requests.push_back({prepared_.prompts[i].front(), task_.probe, where(i)});
      result_.documents[i].continuations = {task_.probe};
    }
    const auto scores = loglikelihood(model_, requests, likelihood_options(false));
    for (size_t i = 0; i < scores.size(); ++i) {
      Response& response = result_.documents[i].response;
      response.log_probs = {scores[i].log_prob};
      response.is_greedy = {static_cast<uint8_t>(scores[i].is_greedy)};
    }
  }

  // One text, or several of which each is right.
  std::vector<std::string> references(size_t i, const TaskFormat& format) const {
    Json target = prepared_.targets[i];
    if (format.has_choices()) {
      const std::vector<std::string> choices = format.choices(prepared_.documents[i]);
      const Gold gold = gold_choice(target, choices);
      if (gold.choices.empty() || gold.choices.front() < 0) {
        fail(ErrorKind::kCorruption, "{}: doc_to_target: {} is none of the {} choices", where(i), dump_json(target),
             choices.size());
      }
      return {choices[static_cast<size_t>(gold.choices.front())]};
    }
    std::vector<std::string> out;
    if (!target.is_array()) target = Json::array({target});
    for (const Json& one : target) out.push_back(one.is_string() ? one.get<std::string>() : dump_json(one));
    return out;
  }

  void score_generations(const FilterPipeline& filter, const std::vector<std::string>& texts) {
    const TaskFormat format = TaskFormat::of_documents(task_);
    std::vector<TextScorer> scorers;
    if (task_.process_results.empty()) {
      for (const MetricDefinition& metric : task_.metrics) scorers.emplace_back(metric);
    }
    for (size_t i = 0; i < texts.size(); ++i) {
      DocumentRecord& record = result_.documents[i];
      const std::vector<std::string> golds = references(i, format);
      record.answer = golds.empty() ? std::string() : golds.front();
      if (filter.name != "none") record.extracted.emplace_back(filter.name, texts[i]);
      Response response = record.response;
      response.text = texts[i];
      if (score_by_function(i, response, filter.name)) continue;
      for (const TextScorer& scorer : scorers) add_scores(i, {scorer(texts[i], golds)}, filter.name);
    }
  }

  const LanguageModel& model_;
  const TaskDefinition& task_;
  const EvaluationOptions& options_;
  const PhaseProgress& progress_;
  PreparedTask prepared_;
  TaskResult result_;
};

}  // namespace

TaskResult run_documents(const LanguageModel& model, const TaskDefinition& task, const TaskRequest& request,
                         const EvaluationOptions& options, const PhaseProgress& progress) {
  const auto start = Clock::now();
  TaskRun run(model, task, request, options, progress);
  TaskResult result;
  try {
    result = run.run();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCheckFailed) throw;
    result = run.broken(error);
  }
  result.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return result;
}

}  // namespace salient::eval
