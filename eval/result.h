// What an evaluation gives.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "eval/calibration.h"
#include "eval/document_record.h"
#include "eval/generation_comparison.h"
#include "eval/paired_flips.h"
#include "eval/run_health.h"
#include "eval/statistics.h"
#include "eval/task.h"
#include "eval/throughput.h"

namespace salient::eval {

// A metric beside the same metric of the base, on the same documents.
struct BaseComparison {
  double base_value = 0;                   // in the metric's unit
  Estimate difference;                     // value - base_value
  std::optional<Estimate> retention = {};  // value / base_value; only where higher is better
  std::optional<Estimate> retention_above_chance =
      {};  // (value - chance) / (base_value - chance); only where there is a chance level
  // From here on: absent where documents cannot be compared in pairs (eval/compare_documents.h).
  std::optional<Interval> difference_95 = {};
  std::optional<Interval> retention_95 = {};
  std::optional<double> p_value = {};           // of no difference, two-sided, of this metric alone
  std::optional<double> clustered_stderr = {};  // of the difference, where documents share passages or subjects
  std::optional<int64_t> clusters = {};
  std::optional<double> detectable_difference = {};  // the least true one that this many documents would show, most times (80 %)
  std::optional<Flips> flips = {};                   // only of scores that are 0 or 1
};

struct MetricResult {
  std::string metric;
  Unit unit = Unit::kFraction;
  bool higher_is_better = true;
  bool headline = false;
  bool detail = false;  // not in tables for the terminal
  // Of eval/aggregation.h, by which the value comes from the documents' scores; empty where it is no aggregation of single scores.
  std::string aggregation = {};
  Estimate value;                         // in the unit: percent is 0 to 100
  int64_t n = 0;                          // documents, or positions of text, that it is taken over
  std::optional<double> chance;           // expected value of guessing, in the unit
  std::optional<Interval> value_95 = {};  // of a share of right answers (Wilson)
  std::optional<BaseComparison> base;
};

struct TaskResult {
  std::string task;
  std::string file;
  std::string data_sha256;
  OutputType output_type = OutputType::kGenerateUntil;
  Json config;       // the task as its YAML has it, with all includes; null for groups
  int64_t rows = 0;  // of the evaluated split, whatever the limit
  Json settings;     // everything else that the figures depend on: limit, window, protocol, template, dtype ...
  std::vector<MetricResult> metrics;
  std::vector<DocumentRecord> documents;                 // empty for perplexity and groups
  std::string first_prompt;                              // as the model saw it
  int64_t truncated = 0;                                 // prompts that lost tokens on the left
  int64_t hit_limit = 0;                                 // generations that were cut by their length
  std::optional<Calibration> calibration = {};           // of tasks of choices
  std::optional<GenerationComparison> generations = {};  // of generations, with a base
  std::vector<HealthFlag> flags = {};
  double seconds = 0;

  const MetricResult* find(std::string_view metric) const;
  // Nothing could be scored: there are no metrics, and a flag says why.
  bool is_broken() const;
};

struct ModelResult {
  std::string model;
  Json description;  // of describe(LanguageModel)
  std::vector<TaskResult> tasks;
  std::optional<Throughput> throughput;
};

// A model whose activations or KV cache are rounded, beside the same weights without that: eval/runtime_cost.h.
struct RuntimeCost {
  int activation_bits = 16;
  int kv_bits = 16;
  std::string file;                   // text
  std::vector<MetricResult> metrics;  // of the perplexity task; the base in them is the model with 16 bits

  const MetricResult* find(std::string_view metric) const;
};

struct Evaluation {
  ModelResult model;
  std::optional<ModelResult> base;
  std::vector<RuntimeCost> runtime_costs;
};

}  // namespace salient::eval
