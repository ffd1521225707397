// "bit_plan.json" in a work folder: the plan of a job with target_bits, so that one that is stopped need not measure again.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "pipeline/bit_plan.h"

namespace salient::pipeline {

// `fingerprint`: of everything that decides the plan.
void save_bit_plan(const std::filesystem::path& work_folder, const std::string& fingerprint, const BitPlan& plan);
// What was saved, to the last bit; nothing when there is none, when it is damaged or of another fingerprint.
std::optional<BitPlan> load_bit_plan(const std::filesystem::path& work_folder, const std::string& fingerprint);
bool is_bit_plan_file(const std::string& name);

}  // namespace salient::pipeline
