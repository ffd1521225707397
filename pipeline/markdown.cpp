#include "pipeline/markdown.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "common/text.h"

namespace salient::pipeline {

std::string markdown_text(std::string_view text) {
  std::string escaped;
  for (const char c : one_line(text)) {
    if (std::string_view("\\`*_{}[]<>()#+!|~&").find(c) != std::string_view::npos) escaped += '\\';
    escaped += c;
  }
  return escaped;
}

std::string markdown_value(const Json& value) {
  if (value.is_string()) return markdown_text(value.get<std::string>());
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_number_float()) return fmt::format("{:.4g}", value.get<double>());
  return markdown_text(dump_json(value));
}

std::string markdown_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows) {
  std::string text = fmt::format("| {} |\n|", fmt::join(head, " | "));
  for (size_t i = 0; i < head.size(); ++i) text += " --- |";
  text += "\n";
  for (const std::vector<std::string>& row : rows) text += fmt::format("| {} |\n", fmt::join(row, " | "));
  return text;
}

}  // namespace salient::pipeline
