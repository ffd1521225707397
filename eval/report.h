// Results of an evaluation for people and for programs.
#pragma once

#include <string>

#include "common/json.h"
#include "eval/result.h"

namespace salient::eval {

// {"model": ..., "tasks": [{"task", "file", "data_sha256", "settings", "metrics": [{"metric", "value", "stderr", "n", "unit",
// "higher_is_better", "headline", "chance", "base_value", "difference", "difference_stderr", "retention", "retention_stderr",
// "retention_above_chance"}], ...}], "throughput": {...}}; fields that a metric does not have are left out.
Json to_json(const ModelResult& result);
// {"model": ..., "base": ..., "verdict": ..., "runtime_costs": [{"activation_bits", "kv_bits", "file", "metrics"}, ...]}
Json to_json(const Evaluation& evaluation);
// One scored document: {"line", "answer", "text", "log_probs", "scores": {...}}. A file of these is one line for each.
Json to_json(const DocumentRecord& document);

// A table of all metrics, then speed and memory. Plain ASCII, for terminals.
std::string to_table(const Evaluation& evaluation);

// One sentence: what the model keeps of its base and which losses are more than chance (95 %, paired); without a base, its headline scores.
std::string verdict(const Evaluation& evaluation);

}  // namespace salient::eval
