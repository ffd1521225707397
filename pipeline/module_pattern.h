// Names of modules in configurations, in llm-compressor's form: a name, or "re:" and a regular expression.
#pragma once

#include <string>
#include <vector>

namespace salient::pipeline {

// A plain pattern matches the whole name or its last components ("down_proj" matches "model.layers.0.mlp.down_proj"); a regular
// expression must match from the beginning of the name, as Python's re.match does. Errors: invalid argument for a broken
// expression.
bool matches_pattern(const std::string& pattern, const std::string& module);
bool matches_any(const std::vector<std::string>& patterns, const std::string& module);

}  // namespace salient::pipeline
