// A sweep's results as people and programs read them.
#pragma once

#include <string>

#include "common/json.h"
#include "pipeline/sweep/sweep_figures.h"

namespace salient::pipeline {

// A line for each point, the smallest first: its values, size, loss, headline metrics, and a star on the front; then failed ones
// and the spread over seeds.
std::string sweep_table(const SweepConfig& config, const SweepReport& report, const SweepFigures& figures);

// {"name", "loss", "points": [{"name", "values", "seed", "artifact", "bytes", "loss", "stderr", "front", "error", "metrics":
// [...]}], "spreads": [...], "shared", "seconds"}. Points in the order of the config.
Json sweep_json(const SweepConfig& config, const SweepReport& report, const SweepFigures& figures);

// The points as RFC 4180 text: a column for each key, size, loss, front, and value, standard error and base of each metric.
std::string sweep_csv(const SweepConfig& config, const SweepReport& report, const SweepFigures& figures);

// SVG: loss against size with the front, and loss against each key that has numbers, a line for each combination of the others. ""
// where there is no loss.
std::string sweep_plots(const SweepConfig& config, const SweepFigures& figures);

}  // namespace salient::pipeline
