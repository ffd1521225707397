#include "pipeline/module_pattern.h"

#include <algorithm>
#include <regex>
#include <string_view>

#include "common/error.h"

namespace salient::pipeline {
namespace {

constexpr std::string_view kExpression = "re:";

}  // namespace

bool matches_pattern(const std::string& pattern, const std::string& module) {
  if (!pattern.starts_with(kExpression)) return module == pattern || module.ends_with("." + pattern);
  try {
    const std::regex expression(pattern.substr(kExpression.size()));
    return std::regex_search(module, expression, std::regex_constants::match_continuous);
  } catch (const std::regex_error&) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("'{}' is not a regular expression", pattern))
        .with_hint("after re: comes an expression as in \"re:.*down_proj$\"");
  }
}

bool matches_any(const std::vector<std::string>& patterns, const std::string& module) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches_pattern(pattern, module); });
}

}  // namespace salient::pipeline
