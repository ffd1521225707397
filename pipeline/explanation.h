// What a quantized artifact says of itself: where the error lies, what each step of the search took off it, how well the salience
// of the inputs foretells it, and what was noted on the way. All of it from the artifact's quantization_metadata.json; nothing is
// measured anew.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "pipeline/awq_options.h"

namespace salient::pipeline {

// Several linears together. Errors are sums over those linears in which they were measured; nothing where they were measured in
// none.
struct LinearSummary {
  std::string name;  // projection ("q_proj", "experts.down_proj") or block ("3")
  int64_t linears = 0;
  double rtn_error = 0;
  double error = 0;
  std::optional<double> mean_bits;       // over the linears, not their weights
  std::optional<double> scaled_left;     // share of the rounding error that is left with the scales, of the linears that say so
  std::optional<double> clipped_left;    //   and with clipping
  double left = 0;                       //   and as stored
  std::optional<double> held_back_left;  // stored / nearest on held-back rows
  double clipped_share = 0;              // mean
  std::optional<double> salience_correlation;  // median of the linears' own
};

// How well salience predicts the rounding error.
struct SalienceStudy {
  int64_t linears = 0;                 // that have a rank correlation of their own
  std::optional<double> within_least;  // Spearman, over the input channels of a linear
  std::optional<double> within_median;
  std::optional<double> within_greatest;
  // Spearman, over linears, of the error of rounding to nearest and the share of sum(mean |x|) in the top 1 % of the channels.
  std::optional<double> across;
  int64_t across_linears = 0;
};

// One point of "rows_curve": [calibration rows that were used, held-back error of what they gave, that of rounding to nearest],
// summed over linears.
struct RowsCurvePoint {
  int64_t rows = 0;
  double held_back_error = 0;
  double held_back_nearest = 0;
};

struct Explanation {
  std::filesystem::path folder;
  std::string format;  // "awq-gemm"
  std::string method;  // "AWQ"
  Json spec;
  Json search;
  int64_t calibration_tokens = 0;
  int64_t calibration_blocks = 0;
  std::vector<LinearReport> linears;  // as stored: by block
  LinearSummary total;
  std::vector<LinearSummary> projections;  // in the order of the first block that has them
  std::vector<LinearSummary> blocks;
  SalienceStudy salience;
  std::vector<RowsCurvePoint> rows_curve;
};

// Errors: not found (folder, quantization_metadata.json), corruption, unsupported (another program's metadata; an artifact in which
// nothing was rounded).
Explanation explain_artifact(const std::filesystem::path& folder);
// The same of the file's contents, without a folder. `where` opens the error text. Errors: corruption, unsupported.
Explanation explain_metadata(const Json& metadata, const std::string& where);

// "error" (largest first), "rtn", "ratio" (error / rtn_error, largest first), "sensitivity" (error that one bit less would add,
// largest first; not measured last) or "name" (as stored). Errors: invalid argument.
std::vector<LinearReport> sorted_linears(std::vector<LinearReport> linears, const std::string& order);

// "model.layers.3.mlp.experts.7.down_proj" -> "experts.down_proj", "model.layers.3.mlp.down_proj" -> "down_proj".
std::string projection_of(std::string_view linear);
// 3 of the above; -1 where no component is a number.
int64_t block_of(std::string_view linear);

// error / rtn_error; nothing when there was no error to begin with.
std::optional<double> share_left(double error, double rtn_error);

Json to_json(const Explanation& explanation);

// The plots: error before and after by linear, salience by linear, and the error by calibration rows where it was measured. Experts
// of a block are drawn as their mean.
std::string plot_explanation(const Explanation& explanation);

}  // namespace salient::pipeline
