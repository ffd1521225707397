// Several quantizations of one model on one pass of the float model (shared_pass.h): other bits, group sizes, formats, clipping,
// roundings, calibration sets. Each has the bytes that quantize_model gives, and goes on where it was stopped as it would there.
#pragma once

#include <exception>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "calibration/token_blocks.h"
#include "pipeline/quantize_model.h"

namespace salient::pipeline {

struct FamilyMember {
  QuantizeModelOptions options;  // shares_float_pass; one source and device for all
  const calibration::TokenBlocks* tokens = nullptr;
};

// Of one member: a result, or the error that stopped it while the others went on.
struct FamilyOutcome {
  std::optional<QuantizeModelResult> result;
  std::exception_ptr error;
};

struct FamilyOptions {
  std::filesystem::path folder;  // for the pass's hidden states; removed when all members are done
  // Blocks of all members, done and in all. The members' own on_progress are not called.
  std::function<void(int64_t done, int64_t total)> on_progress;
  std::function<void(const std::string& line)> on_message;
};

// Outcomes in the order of the members. Errors: internal, where a member cannot share; io of the shared files. Those of a single
// member are its outcome.
std::vector<FamilyOutcome> quantize_family(const std::vector<FamilyMember>& members, const FamilyOptions& options);

}  // namespace salient::pipeline
