#include "eval/tasks.h"

#include <algorithm>
#include <array>
#include <string>

#include "common/error.h"
#include "eval/multiple_choice.h"
#include "eval/numeric_answer.h"
#include "eval/squad_task.h"

namespace salient::eval {
namespace {

std::string question_prompt(const Json& row, const std::string& where) {
  return "Question: " + require<std::string>(row, "question", where) + "\nAnswer:";
}

std::string worked_answer(const Json& row, const std::string& where) { return require<std::string>(row, "answer", where); }

std::vector<Score> score_numbers(const Json& row, const Response& response) {
  const auto reference = row.at("answer").get<std::string>();
  return {{"strict_match", same_number(extract_strict(response.text), reference) ? 1.0 : 0.0},
          {"flexible_extract", same_number(extract_flexible(response.text), reference) ? 1.0 : 0.0}};
}

constexpr std::array kAccuracyMetrics = {MetricDefinition{"acc", Unit::kFraction, true, true}, MetricDefinition{"acc_norm"}};
constexpr std::array kNumberMetrics = {MetricDefinition{"strict_match", Unit::kFraction, true, true},
                                       MetricDefinition{"flexible_extract"}};
constexpr std::array kPerplexityMetrics = {
    MetricDefinition{"perplexity", Unit::kNone, false},
    MetricDefinition{"perplexity_llama_cpp", Unit::kNone, false},
    // With a base:
    MetricDefinition{"ln_ppl_ratio", Unit::kNats, false},
    MetricDefinition{"kl_divergence", Unit::kNats, false},
    MetricDefinition{"kl_median", Unit::kNats, false},
    MetricDefinition{"kl_p99", Unit::kNats, false},
    MetricDefinition{"kl_max", Unit::kNats, false},
    MetricDefinition{"top1_agreement"},
};

constexpr std::array<std::string_view, 3> kNumberStops = {"Question:", "</s>", "<|im_end|>"};
constexpr std::array<std::string_view, 1> kLineStop = {"\n"};
constexpr std::array<std::string_view, 3> kArcAliases = {"arc_easy", "arc_challenge", "ai2_arc"};
constexpr std::array<std::string_view, 2> kSquadAliases = {"squadv2", "squad"};
constexpr std::array<std::string_view, 2> kPerplexityAliases = {"ppl", "wikitext"};

constexpr TaskDefinition number_task(std::string_view name) {
  return {.name = name,
          .kind = TaskKind::kGeneration,
          .layout = "question, answer (a worked solution that ends in \"#### NUMBER\")",
          .metrics = kNumberMetrics,
          .prompt = question_prompt,
          .answer = worked_answer,
          .score = score_numbers,
          .stop = kNumberStops};
}

constexpr std::array kTasks = {
    TaskDefinition{.name = "perplexity",
                   .aliases = kPerplexityAliases,
                   .kind = TaskKind::kPerplexity,
                   .layout = "plain text, or rows with text",
                   .metrics = kPerplexityMetrics},
    TaskDefinition{.name = "arc",
                   .aliases = kArcAliases,
                   .kind = TaskKind::kMultipleChoice,
                   .layout = "question, choices {text[], label[]}, answerKey",
                   .metrics = kAccuracyMetrics,
                   .prompt = question_prompt,
                   .choices = labelled_choices,
                   .score = score_choices},
    number_task("openmath"),
    number_task("gsm8k"),
    TaskDefinition{.name = "squad_v2",
                   .aliases = kSquadAliases,
                   .kind = TaskKind::kGeneration,
                   .layout = "title, context, question, answers {text[]}",
                   .metrics = kSquadMetrics,
                   .prompt = squad_prompt,
                   .answer = squad_answer,
                   .score = score_squad,
                   .score_set = score_squad_set,
                   .stop = kLineStop,
                   .probe = " unanswerable"},
};

}  // namespace

std::string_view to_string(Unit unit) {
  switch (unit) {
    case Unit::kFraction: return "fraction";
    case Unit::kPercent: return "percent";
    case Unit::kNats: return "nats";
    case Unit::kNone: return "";
  }
  return "";
}

std::optional<double> DocumentRecord::score(std::string_view metric) const {
  for (const Score& s : scores) {
    if (s.metric == metric) return s.value;
  }
  return std::nullopt;
}

std::span<const TaskDefinition> tasks() { return kTasks; }

const TaskDefinition& find_task(std::string_view name) {
  std::string names;
  for (const TaskDefinition& task : kTasks) {
    if (task.name == name || std::find(task.aliases.begin(), task.aliases.end(), name) != task.aliases.end()) return task;
    names += (names.empty() ? "" : ", ") + std::string(task.name);
  }
  fail(ErrorKind::kInvalidArgument, "task \"{}\" is not there; there are: {}", name, names);
}

}  // namespace salient::eval
