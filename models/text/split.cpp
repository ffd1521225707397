#include "models/text/split.h"

#include <algorithm>

#include "common/error.h"

namespace salient::models {
namespace {

// Joins each match to the segment before it. Of several matches in a row only the first joins.
std::vector<TextRange> merge_with_previous(std::span<const Segment> segments) {
  std::vector<TextRange> parts;
  bool previous_match = false;
  for (const Segment& segment : segments) {
    if (segment.is_match && !previous_match && !parts.empty()) {
      parts.back().end = segment.range.end;
    } else {
      parts.push_back(segment.range);
    }
    previous_match = segment.is_match;
  }
  return parts;
}

// The mirror image: of several matches in a row only the last joins what follows.
std::vector<TextRange> merge_with_next(std::span<const Segment> segments) {
  std::vector<TextRange> parts;
  bool next_match = false;
  for (size_t i = segments.size(); i-- > 0;) {
    const Segment& segment = segments[i];
    if (segment.is_match && !next_match && !parts.empty()) {
      parts.back().begin = segment.range.begin;
    } else {
      parts.push_back(segment.range);
    }
    next_match = segment.is_match;
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<TextRange> join_runs(std::span<const Segment> segments) {
  std::vector<TextRange> parts;
  bool previous_match = false;
  for (const Segment& segment : segments) {
    if (segment.is_match == previous_match && !parts.empty()) {
      parts.back().end = segment.range.end;
    } else {
      parts.push_back(segment.range);
    }
    previous_match = segment.is_match;
  }
  return parts;
}

}  // namespace

SplitBehavior parse_split_behavior(std::string_view name, std::string_view where) {
  constexpr std::pair<std::string_view, SplitBehavior> kNames[] = {
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous},
  };
  for (const auto& [known, behavior] : kNames) {
    if (known == name) return behavior;
  }
  fail(ErrorKind::kCorruption,
       "{}: key 'behavior': found '{}', expected Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous", where, name);
}

std::vector<Segment> cover(std::span<const TextRange> matches, size_t size) {
  std::vector<Segment> segments;
  segments.reserve(matches.size() + 1);
  size_t done = 0;
  for (const TextRange& match : matches) {
    if (done < match.begin) segments.push_back({{done, match.begin}, false});
    segments.push_back({match, true});
    done = match.end;
  }
  if (done < size) segments.push_back({{done, size}, false});
  return segments;
}

std::vector<TextRange> split_segments(std::span<const Segment> segments, SplitBehavior behavior) {
  std::vector<TextRange> parts;
  switch (behavior) {
    case SplitBehavior::kIsolated:
      for (const Segment& segment : segments) parts.push_back(segment.range);
      break;
    case SplitBehavior::kRemoved:
      for (const Segment& segment : segments) {
        if (!segment.is_match) parts.push_back(segment.range);
      }
      break;
    case SplitBehavior::kMergedWithPrevious: parts = merge_with_previous(segments); break;
    case SplitBehavior::kMergedWithNext: parts = merge_with_next(segments); break;
    case SplitBehavior::kContiguous: parts = join_runs(segments); break;
  }
  std::erase_if(parts, [](const TextRange& range) { return range.begin >= range.end; });
  return parts;
}

}  // namespace salient::models
