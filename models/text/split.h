// Splitting text at matches, with the five ways in which a delimiter can stay or go.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "models/text/piece.h"
#include "models/text/regex.h"

namespace salient::models {

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// "Removed", "Isolated", "MergedWithPrevious", "MergedWithNext" or "Contiguous". Errors: corruption.
SplitBehavior parse_split_behavior(std::string_view name, std::string_view where);

struct Segment {
  TextRange range;
  bool is_match;
};

// The matches and, between them, what does not match: together all of a text of `size` bytes.
std::vector<Segment> cover(std::span<const TextRange> matches, size_t size);

// The parts of a text that `segments` cover, cut as `behavior` says; empty ones left out.
std::vector<TextRange> split_segments(std::span<const Segment> segments, SplitBehavior behavior);

// Splits every piece without an id; `segments_of(text)` covers its text.
template <typename SegmentsOf>
void split_pieces(std::vector<Piece>& pieces, SegmentsOf segments_of, SplitBehavior behavior) {
  std::vector<Piece> parts;
  parts.reserve(pieces.size());
  for (Piece& piece : pieces) {
    if (piece.id) {
      parts.push_back(std::move(piece));
      continue;
    }
    for (const TextRange& range : split_segments(segments_of(piece.text), behavior)) parts.push_back(piece.slice(range));
  }
  pieces = std::move(parts);
}

}  // namespace salient::models
