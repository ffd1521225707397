// Figures as people read them.
#pragma once

#include <optional>
#include <string>

#include "eval/result.h"

namespace salient::eval {

// Four decimals, or three significant digits where these would show nothing.
std::string number(double value);
std::string number(const std::optional<double>& value);  // empty for none

// "demo_awq", "demo_awq (a8 kv8)".
std::string with_bits(const ModelResult& model);

}  // namespace salient::eval
