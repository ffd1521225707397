// Results of an evaluation for people and for programs.
#pragma once

#include <string>

#include "common/json.h"
#include "eval/result.h"

namespace salient::eval {

// {"model", "description", "tasks": [{"task", "file", "data_sha256", "settings", "metrics", "seconds", "calibration",
// "generations", "flags": [{"kind", "share", "document", "text"}], ...}], "throughput": {...}}. A metric is {"metric", "value",
// "stderr", "value_low", "value_high", "n", "unit", "higher_is_better", "headline", "detail", "chance"} and with a base
// {"base_value", "difference", "difference_stderr", "difference_clustered_stderr", "clusters", "difference_low", "difference_high",
// "p_value", "detectable_difference", "retention", "retention_stderr", "retention_low", "retention_high", "retention_above_chance",
// "flips": {"lost", "gained", "changed", "mcnemar_p", "mcnemar_mid_p"}}. "_low" and "_high" are bounds of 95 %, "document" is a
// line of the data file. Fields that a metric or task does not have are left out.
Json to_json(const ModelResult& result);
// {"model": ..., "base": ..., "verdict": text, "verdict_lines": [text], "runtime_costs": [{"activation_bits", "kv_bits", "file",
// "metrics"}, ...]}
Json to_json(const Evaluation& evaluation);

// A table of the metrics that are no mere details, the flags of broken runs, then speed and memory. For terminals.
std::string to_table(const Evaluation& evaluation);

}  // namespace salient::eval
