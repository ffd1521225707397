#include "calibration/sources.h"

#include <charconv>
#include <cmath>
#include <map>

#include "common/error.h"

namespace salient::calibration {
namespace {

std::optional<double> number(std::string_view text) {
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || code != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::vector<CalibrationSource> parse_sources(std::string_view text) {
  std::vector<CalibrationSource> sources;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    std::string_view part = text.substr(begin, end - begin);
    CalibrationSource source;
    if (const size_t colon = part.rfind(':'); colon != std::string_view::npos) {
      if (const auto weight = number(part.substr(colon + 1))) {
        source.weight = weight;
        part = part.substr(0, colon);
      }
    }
    if (part.empty()) {
      fail(ErrorKind::kInvalidArgument, "calibration files '{}': found an empty name, expected FILE or FILE:WEIGHT between commas",
           text);
    }
    source.file = part;
    sources.push_back(std::move(source));
    begin = end + 1;
  }
  check_sources(sources);
  return sources;
}

std::string domain_of(const CalibrationSource& source) {
  return source.domain.empty() ? source.file.stem().string() : source.domain;
}

void check_sources(const std::vector<CalibrationSource>& sources) {
  if (sources.empty()) fail(ErrorKind::kInvalidArgument, "calibration: no file is given");
  std::map<std::string, std::filesystem::path> files;
  for (const CalibrationSource& source : sources) {
    const std::string file = source.file.string();
    if (source.weight && (!std::isfinite(*source.weight) || *source.weight <= 0)) {
      fail(ErrorKind::kInvalidArgument, "calibration file '{}': weight {}: expected a number above 0", file, *source.weight);
    }
    if (source.samples < 0)
      fail(ErrorKind::kInvalidArgument, "calibration file '{}': samples {}: expected at least 0", file, source.samples);
    const auto [at, is_new] = files.emplace(domain_of(source), source.file);
    if (!is_new) {
      throw Error(ErrorKind::kInvalidArgument,
                  fmt::format("calibration files '{}' and '{}' both have the domain '{}'", at->second.string(), file, at->first))
          .with_hint("give each file a domain of its own: {file: ..., domain: ...}");
    }
  }
}

}  // namespace salient::calibration
