// A sensitivity for people and for programs.
#pragma once

#include <string>

#include "common/json.h"
#include "eval/sensitivity.h"

namespace salient::eval {

// {"by", "fallback", "windows", "window", "whole_model": {"kl_divergence", "stderr", "top1_agreement", "top1_stderr"},
// "sum_of_only", "parts": [{"part", "share", "only": {...}, "all_but": {...}}, ...], the most expensive first, "estimated_groups",
// "scale_uncertainty"}; what does not apply is left out.
Json to_json(const Sensitivity& sensitivity);

// A table, the most expensive part first, with bars and shares of the sum; then how far the parts add up. `top`: rows, 0 = all.
// Plain ASCII.
std::string to_table(const Sensitivity& sensitivity, int64_t top = 0);

}  // namespace salient::eval
