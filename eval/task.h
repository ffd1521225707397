// An evaluation task as data: how a row of a data set becomes requests, and responses become scores.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"

namespace salient::eval {

enum class TaskKind { kMultipleChoice, kGeneration, kPerplexity };

enum class Unit { kFraction, kPercent, kNats, kNone };
std::string_view to_string(Unit unit);

struct MetricDefinition {
  std::string_view name;
  Unit unit = Unit::kFraction;
  bool higher_is_better = true;
  bool headline = false;  // stands for the task in a verdict
};

struct Choices {
  std::vector<std::string> texts;
  size_t gold = 0;
};

// What a model said to a document.
struct Response {
  std::vector<double> log_probs;  // of each choice, or of the probe
  std::string text;               // generated
  std::string turn;               // the same up to the first special token
};

// One metric of one document, in fractions whatever the metric's unit. A metric that does not concern a document has no score there.
struct Score {
  std::string_view metric;
  double value = 0;
};

// One document after scoring. Kept for paired comparisons and for looking at single answers.
struct DocumentRecord {
  int64_t line = 0;  // in the data file, from 1
  Response response;
  std::string answer;  // the gold answer
  std::vector<Score> scores;
  double chance = 0;   // expected score of guessing; 0 where that makes no sense

  std::optional<double> score(std::string_view metric) const;
};

// A metric that is not a mean over documents.
struct SetScore {
  std::string_view metric;
  double value = 0;  // fraction
};

struct TaskDefinition {
  std::string_view name;
  std::span<const std::string_view> aliases = {};
  TaskKind kind = TaskKind::kMultipleChoice;
  std::string_view layout = {};  // the fields that a row needs, as help and errors show them
  std::span<const MetricDefinition> metrics = {};

  // `where` names the row in errors. Errors: corruption for a missing or ill-typed field.
  std::string (*prompt)(const Json& row, const std::string& where) = nullptr;
  Choices (*choices)(const Json& row, const std::string& where) = nullptr;      // kMultipleChoice
  std::string (*answer)(const Json& row, const std::string& where) = nullptr;   // kGeneration
  std::vector<Score> (*score)(const Json& row, const Response& response) = nullptr;
  std::vector<SetScore> (*score_set)(std::span<const DocumentRecord> documents) = nullptr;  // may be null

  std::span<const std::string_view> stop = {};  // kGeneration
  int64_t max_new_tokens = 256;
  std::string_view probe = {};  // kGeneration: a continuation of the prompt whose log-probability is wanted too; empty = none
};

// Put between a prompt and a choice in plain text; with a chat template nothing is (lm-evaluation-harness's target_delimiter).
inline constexpr std::string_view kTargetDelimiter = " ";

}  // namespace salient::eval
