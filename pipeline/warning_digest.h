// The warnings of all linears in a few lines: what a user sees at the end of a quantization. All of them stay in
// quantization_metadata.json.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/json.h"
#include "pipeline/awq_options.h"

namespace salient::pipeline {

// Warnings that differ in their numbers only, and dead input channels, which have a count of their own in the reports.
struct WarningKind {
  std::string text;     // of the first
  bool varies = false;  // whether others have other numbers
  std::vector<std::string> linears;
};

// In the order in which they first come up.
std::vector<WarningKind> collect_warnings(std::span<const LinearReport> reports);

// "warning, 7 linears: 12 calibration tokens with NaN or infinite inputs were left out (model.layers.0.self_attn.q_proj, ... and 4
// more)"
std::vector<std::string> warning_lines(std::span<const LinearReport> reports);

// [{"text", "linears": count, "first": [names]}, ...]
Json warnings_json(std::span<const LinearReport> reports);

}  // namespace salient::pipeline
