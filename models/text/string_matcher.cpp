#include "models/text/string_matcher.h"

namespace salient::models {

void StringMatcher::add(std::string_view text, int32_t value) {
  if (text.empty()) return;
  starts_[static_cast<uint8_t>(text[0])] = true;
  uint32_t node = 0;
  for (const char c : text) {
    const auto [it, inserted] = children_.emplace(edge(node, static_cast<uint8_t>(c)), static_cast<uint32_t>(values_.size()));
    if (inserted) values_.push_back(-1);
    node = it->second;
  }
  if (values_[node] < 0) values_[node] = value;
}

std::vector<StringMatcher::Match> StringMatcher::find_all(std::string_view text) const {
  std::vector<Match> matches;
  if (children_.empty()) return matches;
  for (size_t start = 0; start < text.size();) {
    if (!starts_[static_cast<uint8_t>(text[start])]) {
      ++start;
      continue;
    }
    Match longest{{start, start}, -1};
    uint32_t node = 0;
    for (size_t i = start; i < text.size(); ++i) {
      const auto it = children_.find(edge(node, static_cast<uint8_t>(text[i])));
      if (it == children_.end()) break;
      node = it->second;
      if (values_[node] >= 0) longest = {{start, i + 1}, values_[node]};
    }
    if (longest.value >= 0) {
      matches.push_back(longest);
      start = longest.range.end;
    } else {
      ++start;
    }
  }
  return matches;
}

}  // namespace salient::models
