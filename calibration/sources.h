// Where calibration rows come from: one file, or several that are mixed by weight.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace salient::calibration {

struct CalibrationSource {
  std::filesystem::path file;
  // Share of the tokens, against the other sources' weights. Nothing for all sources: each gives all its rows. Nothing for some: 1.
  std::optional<double> weight;
  int64_t samples = 0;  // at most this many of its rows, drawn by seed; 0 = all
  std::string domain;   // what reports call it; empty: the file's base name without extension
};

// "a.jsonl", "a.jsonl:2", "a.jsonl:2,b.jsonl:0.5": files between commas, each with its weight behind a colon where the part behind
// the last colon is a number. Errors: invalid argument: an empty name, a weight that is not above 0.
std::vector<CalibrationSource> parse_sources(std::string_view text);

std::string domain_of(const CalibrationSource& source);

// Errors: invalid argument: no source, a weight that is not above 0 or not finite, negative samples, two sources with the same
// domain name.
void check_sources(const std::vector<CalibrationSource>& sources);

}  // namespace salient::calibration
