#include "calibration/coverage.h"

#include <algorithm>

#include "common/error.h"
#include "common/table.h"

namespace salient::calibration {
namespace {

constexpr size_t kShownLines = 8;

std::string percent(int64_t part, int64_t whole) {
  return fmt::format("{:.1f} %", whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0);
}

const Json& list(const Json& json, const char* key, std::string_view where) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_array()) fail(ErrorKind::kCorruption, "{}: key '{}': expected a list", where, key);
  return *found;
}

}  // namespace

CoverageReport coverage_of(const TokenBlocks& blocks, int64_t vocab_size) {
  const TokenStatistics& s = blocks.statistics;
  CoverageReport report;
  report.rows = s.rows;
  report.blocks = s.blocks;
  report.longest_row = s.row_tokens.max;
  report.truncated = s.truncated;
  report.split = s.split;
  report.dropped = s.dropped;
  report.dropped_tokens = s.dropped_tokens;
  report.duplicates = s.duplicates;
  report.vocab_size = vocab_size;
  for (size_t i = 0; i < blocks.domain_names.size(); ++i)
    report.domains.push_back({blocks.domain_names[i], blocks.domain_rows[i], 0, 0});
  if (report.domains.empty()) report.domains.push_back({"", s.rows - s.dropped, 0, 0});

  std::vector<bool> used(static_cast<size_t>(std::max<int64_t>(vocab_size, 0)), false);
  const int64_t width = blocks.ids.size(1);
  const auto* ids = blocks.ids.const_data_ptr<int64_t>();
  const auto* lengths = blocks.lengths.const_data_ptr<int64_t>();
  const bool* mask = blocks.mask.defined() ? blocks.mask.const_data_ptr<bool>() : nullptr;
  const int32_t* domains = blocks.domains.defined() ? blocks.domains.const_data_ptr<int32_t>() : nullptr;
  for (int64_t block = 0; block < blocks.ids.size(0); ++block) {
    for (int64_t place = block * width; place < block * width + lengths[block]; ++place) {
      if (ids[place] < 0 || ids[place] >= vocab_size) {
        fail(ErrorKind::kInvalidArgument, "calibration block {}: token id {}, expected 0 to {}", block, ids[place], vocab_size - 1);
      }
      DomainCoverage& domain = report.domains[static_cast<size_t>(domains == nullptr ? 0 : domains[place])];
      ++domain.tokens;
      if (mask != nullptr && !mask[place]) continue;
      ++domain.counted_tokens;
      if (!used[static_cast<size_t>(ids[place])]) ++report.distinct_tokens;
      used[static_cast<size_t>(ids[place])] = true;
    }
  }
  for (const DomainCoverage& domain : report.domains) {
    report.tokens += domain.tokens;
    report.counted_tokens += domain.counted_tokens;
  }
  report.masked_tokens = report.tokens - report.counted_tokens;
  return report;
}

Json to_json(const CoverageReport& r) {
  Json domains = Json::array(), channels = Json::array(), experts = Json::array();
  for (const DomainCoverage& d : r.domains) {
    domains.push_back(
        Json::object({{"name", d.name}, {"rows", d.rows}, {"tokens", d.tokens}, {"counted_tokens", d.counted_tokens}}));
  }
  for (const ChannelCoverage& c : r.channels)
    channels.push_back(Json::object({{"name", c.name}, {"channels", c.channels}, {"inactive", c.inactive}}));
  for (const ExpertCoverage& e : r.experts)
    experts.push_back(Json::object({{"name", e.name}, {"experts", e.experts}, {"never_reached", e.never_reached}}));
  return {{"rows", r.rows},
          {"blocks", r.blocks},
          {"tokens", r.tokens},
          {"counted_tokens", r.counted_tokens},
          {"masked_tokens", r.masked_tokens},
          {"longest_row", r.longest_row},
          {"truncated", r.truncated},
          {"split", r.split},
          {"dropped", r.dropped},
          {"dropped_tokens", r.dropped_tokens},
          {"duplicates", r.duplicates},
          {"vocab_size", r.vocab_size},
          {"distinct_tokens", r.distinct_tokens},
          {"domains", domains},
          {"channels", channels},
          {"experts", experts}};
}

CoverageReport coverage_from_json(const Json& json, std::string_view where) {
  const auto number = [&](const Json& object, const char* key) { return require<int64_t>(object, key, where); };
  const auto name = [&](const Json& object) { return require<std::string>(object, "name", where); };
  CoverageReport r;
  r.rows = number(json, "rows");
  r.blocks = number(json, "blocks");
  r.tokens = number(json, "tokens");
  r.counted_tokens = number(json, "counted_tokens");
  r.masked_tokens = number(json, "masked_tokens");
  r.longest_row = number(json, "longest_row");
  r.truncated = number(json, "truncated");
  r.split = number(json, "split");
  r.dropped = number(json, "dropped");
  r.dropped_tokens = number(json, "dropped_tokens");
  r.duplicates = number(json, "duplicates");
  r.vocab_size = number(json, "vocab_size");
  r.distinct_tokens = number(json, "distinct_tokens");
  for (const Json& d : list(json, "domains", where))
    r.domains.push_back({name(d), number(d, "rows"), number(d, "tokens"), number(d, "counted_tokens")});
  for (const Json& c : list(json, "channels", where)) r.channels.push_back({name(c), number(c, "channels"), number(c, "inactive")});
  for (const Json& e : list(json, "experts", where)) {
    ExpertCoverage experts{name(e), number(e, "experts"), {}};
    for (const Json& expert : list(e, "never_reached", where)) {
      if (!expert.is_number_integer()) fail(ErrorKind::kCorruption, "{}: key 'never_reached': expected a list of integers", where);
      experts.never_reached.push_back(expert.get<int64_t>());
    }
    r.experts.push_back(std::move(experts));
  }
  return r;
}

std::string coverage_text(const CoverageReport& r) {
  std::string text =
      fmt::format("calibration: {} tokens in {} blocks of {} rows, {} of {} token ids ({}), longest row {}\n", r.tokens, r.blocks,
                  r.rows, r.distinct_tokens, r.vocab_size, percent(r.distinct_tokens, r.vocab_size), r.longest_row);
  if (r.masked_tokens > 0)
    text += fmt::format("statistics over {} answer tokens ({}), {} others masked\n", r.counted_tokens,
                        percent(r.counted_tokens, r.tokens), r.masked_tokens);
  if (r.split > 0) text += fmt::format("{} long rows were split\n", r.split);
  if (r.truncated > 0) text += fmt::format("{} long rows were cut\n", r.truncated);
  if (r.dropped > 0 || r.dropped_tokens > 0)
    text += fmt::format("{} rows were left out; {} tokens were cut off or left out\n", r.dropped, r.dropped_tokens);
  if (r.duplicates > 0) text += fmt::format("{} rows repeat an earlier one\n", r.duplicates);
  if (r.domains.size() > 1) {
    std::vector<std::vector<std::string>> rows;
    for (const DomainCoverage& d : r.domains) {
      rows.push_back({d.name, std::to_string(d.rows), std::to_string(d.tokens), percent(d.tokens, r.tokens),
                      std::to_string(d.counted_tokens)});
    }
    text += "\n" + format_table({"Domain", "Rows", "Tokens", "Share", "Counted"}, rows);
  }
  if (!r.channels.empty()) {
    std::vector<std::vector<std::string>> rows;
    for (const ChannelCoverage& c : r.channels) {
      if (rows.size() == kShownLines) break;
      rows.push_back({c.name, std::to_string(c.inactive), std::to_string(c.channels)});
    }
    text += fmt::format("\ninput channels that no token made active, in {} places:\n", r.channels.size()) +
            format_table({"Linear", "Inactive", "Channels"}, rows);
  }
  if (!r.experts.empty()) {
    std::vector<std::vector<std::string>> rows;
    for (const ExpertCoverage& e : r.experts) {
      if (rows.size() == kShownLines) break;
      rows.push_back({e.name, std::to_string(e.never_reached.size()), std::to_string(e.experts),
                      fmt::format("{}", fmt::join(e.never_reached.begin(),
                                                  e.never_reached.begin() +
                                                      static_cast<std::ptrdiff_t>(std::min<size_t>(e.never_reached.size(), 12)),
                                                  " "))});
    }
    text += fmt::format("\nexperts that no token reached, in {} blocks:\n", r.experts.size()) +
            format_table({"Block", "Never", "Experts", "Numbers"}, rows);
  }
  return text;
}

}  // namespace salient::calibration
