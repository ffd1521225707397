#include "pipeline/warning_digest.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <map>

namespace salient::pipeline {
namespace {

constexpr size_t kShownNames = 3;

// Every number as "#".
std::string kind_of(const std::string& text) {
  std::string kind;
  for (const char c : text) {
    const bool digit = std::isdigit(static_cast<unsigned char>(c)) != 0;
    const bool inside = !kind.empty() && kind.back() == '#' && (digit || c == '.' || c == 'e' || c == '+' || c == '-');
    if (!inside) kind += digit ? '#' : c;
  }
  return kind;
}

std::vector<std::string> first_names(const WarningKind& kind) {
  return {kind.linears.begin(), kind.linears.begin() + static_cast<std::ptrdiff_t>(std::min(kShownNames, kind.linears.size()))};
}

}  // namespace

std::vector<WarningKind> collect_warnings(std::span<const LinearReport> reports) {
  std::vector<WarningKind> kinds;
  std::map<std::string, size_t> index;
  const auto add = [&](const std::string& text, const std::string& linear) {
    const auto [it, inserted] = index.emplace(kind_of(text), kinds.size());
    if (inserted) kinds.push_back({text, false, {}});
    WarningKind& kind = kinds[it->second];
    kind.varies |= kind.text != text;
    kind.linears.push_back(linear);
  };
  for (const LinearReport& report : reports) {
    for (const std::string& warning : report.warnings) add(warning, report.name);
    if (report.dead_channels > 0)
      add(fmt::format("{} input channels were 0 for every calibration token", report.dead_channels), report.name);
  }
  return kinds;
}

std::vector<std::string> warning_lines(std::span<const LinearReport> reports) {
  std::vector<std::string> lines;
  for (const WarningKind& kind : collect_warnings(reports)) {
    const std::vector<std::string> names = first_names(kind);
    const size_t more = kind.linears.size() - names.size();
    lines.push_back(fmt::format("warning, {} {}: {}{} ({}{})", kind.linears.size(), kind.linears.size() == 1 ? "linear" : "linears",
                                kind.varies ? "such as: " : "", kind.text, fmt::join(names, ", "),
                                more > 0 ? fmt::format(" and {} more", more) : ""));
  }
  return lines;
}

Json warnings_json(std::span<const LinearReport> reports) {
  Json list = Json::array();
  for (const WarningKind& kind : collect_warnings(reports))
    list.push_back({{"text", kind.text}, {"linears", kind.linears.size()}, {"first", first_names(kind)}});
  return list;
}

}  // namespace salient::pipeline
