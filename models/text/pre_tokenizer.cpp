#include "models/text/pre_tokenizer.h"

#include <numeric>
#include <utility>

#include "models/text/byte_level.h"
#include "models/text/metaspace.h"
#include "models/text/part_table.h"
#include "models/text/split.h"
#include "models/text/text_pattern.h"
#include "models/text/unicode.h"
#include "models/text/utf8.h"

namespace salient::models {
namespace {

using Steps = std::vector<PreTokenizer::Step>;
using Make = void (*)(const Json&, std::string_view, Steps&);

void add_part(const Json& part, std::string_view where, Steps& steps);

// GPT-2's words, what ByteLevel splits by when use_regex is true.
constexpr std::string_view kGpt2Words = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kWords = R"([[:word:]\x{200C}\x{200D}]+|[^[:word:]\x{200C}\x{200D}\s]+)";

void make_byte_level(const Json& part, std::string_view where, Steps& steps) {
  const bool add_prefix_space = require<bool>(part, "add_prefix_space", where);
  if (add_prefix_space) {
    steps.push_back([](std::vector<Piece>& pieces) {
      for (Piece& piece : pieces) {
        if (!piece.id && !piece.text.starts_with(' ')) piece.prepend(" ");
      }
    });
  }
  if (value_or<bool>(part, "use_regex", true, where)) {
    steps.push_back([words = Regex(kGpt2Words, where)](std::vector<Piece>& pieces) {
      split_pieces(
          pieces, [&](std::string_view text) { return cover(words.find_all(text), text.size()); }, SplitBehavior::kIsolated);
    });
  }
  steps.push_back([](std::vector<Piece>& pieces) {
    for (Piece& piece : pieces) {
      if (!piece.id) to_byte_characters(piece);
    }
  });
}

void make_split(const Json& part, std::string_view where, Steps& steps) {
  const SplitBehavior behavior = parse_split_behavior(require<std::string>(part, "behavior", where), where);
  steps.push_back([behavior, invert = require<bool>(part, "invert", where),
                   pattern = TextPattern::from_json(part, "pattern", where)](std::vector<Piece>& pieces) {
    split_pieces(
        pieces,
        [&](std::string_view text) {
          std::vector<Segment> segments = cover(pattern.find_all(text), text.size());
          if (invert) {
            for (Segment& segment : segments) segment.is_match = !segment.is_match;
          }
          return segments;
        },
        behavior);
  });
}

void make_whitespace(const Json&, std::string_view where, Steps& steps) {
  steps.push_back([words = Regex(kWords, where)](std::vector<Piece>& pieces) {
    split_pieces(
        pieces,
        [&](std::string_view text) {
          std::vector<Segment> segments = cover(words.find_all(text), text.size());
          for (Segment& segment : segments) segment.is_match = !segment.is_match;
          return segments;
        },
        SplitBehavior::kRemoved);
  });
}

template <typename Predicate>
PreTokenizer::Step split_at_characters(Predicate wanted, SplitBehavior behavior) {
  return [wanted, behavior](std::vector<Piece>& pieces) {
    split_pieces(
        pieces,
        [&](std::string_view text) {
          std::vector<TextRange> matches;
          for (size_t i = 0; i < text.size();) {
            const size_t start = i;
            if (wanted(next_code_point(text, i))) matches.push_back({start, i});
          }
          return cover(matches, text.size());
        },
        behavior);
  };
}

void make_whitespace_split(const Json&, std::string_view, Steps& steps) {
  steps.push_back(split_at_characters(is_white_space, SplitBehavior::kRemoved));
}

void make_digits(const Json& part, std::string_view where, Steps& steps) {
  const bool individual = require<bool>(part, "individual_digits", where);
  steps.push_back(split_at_characters(is_numeric, individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous));
}

void make_punctuation(const Json& part, std::string_view where, Steps& steps) {
  const auto behavior = value_or<std::string>(part, "behavior", "Isolated", where);
  steps.push_back(split_at_characters(is_punctuation, parse_split_behavior(behavior, where)));
}

void make_bert(const Json&, std::string_view, Steps& steps) {
  steps.push_back(split_at_characters(is_white_space, SplitBehavior::kRemoved));
  steps.push_back(split_at_characters(is_punctuation, SplitBehavior::kIsolated));
}

void make_delimiter(const Json& part, std::string_view where, Steps& steps) {
  const char32_t delimiter = require_character(part, "delimiter", where);
  steps.push_back(split_at_characters([delimiter](char32_t code) { return code == delimiter; }, SplitBehavior::kRemoved));
}

void make_fixed_length(const Json& part, std::string_view where, Steps& steps) {
  const auto length = value_or<int64_t>(part, "length", 5, where);
  if (length < 1) fail(ErrorKind::kCorruption, "{}: key 'length': found {}, expected at least 1", where, length);
  steps.push_back([length](std::vector<Piece>& pieces) {
    split_pieces(
        pieces,
        [&](std::string_view text) {
          std::vector<Segment> segments;
          for (size_t i = 0; i < text.size();) {
            const size_t start = i;
            for (int64_t n = 0; n < length && i < text.size(); ++n) next_code_point(text, i);
            segments.push_back({{start, i}, true});
          }
          return segments;
        },
        SplitBehavior::kIsolated);
  });
}

void make_metaspace(const Json& part, std::string_view where, Steps& steps) {
  const Metaspace metaspace = Metaspace::from_json(part, where);
  std::string mark;
  append_utf8(mark, metaspace.replacement);
  steps.push_back([metaspace, mark](std::vector<Piece>& pieces) {
    for (Piece& piece : pieces) {
      if (piece.id) continue;
      std::vector<TextRange> spaces;
      for (size_t at = piece.text.find(' '); at != std::string::npos; at = piece.text.find(' ', at + 1))
        spaces.push_back({at, at + 1});
      replace_all(piece, spaces, mark);
      const bool wanted =
          metaspace.prepend == PrependScheme::kAlways || (metaspace.prepend == PrependScheme::kFirst && piece.at_input_start);
      if (wanted && !piece.text.starts_with(mark)) piece.prepend(mark);
    }
  });
  if (metaspace.split) {
    steps.push_back(split_at_characters([mark = metaspace.replacement](char32_t code) { return code == mark; },
                                        SplitBehavior::kMergedWithNext));
  }
}

void make_sequence(const Json& part, std::string_view where, Steps& steps) {
  const Json list = require_list(part, "pretokenizers", where);
  for (size_t i = 0; i < list.size(); ++i) add_part(list[i], element_name(where, "pretokenizers", i), steps);
}

constexpr PartKind<Make> kKinds[] = {
    {"ByteLevel", make_byte_level},  {"Split", make_split},
    {"Whitespace", make_whitespace}, {"WhitespaceSplit", make_whitespace_split},
    {"Digits", make_digits},         {"Punctuation", make_punctuation},
    {"Metaspace", make_metaspace},   {"CharDelimiterSplit", make_delimiter},
    {"BertPreTokenizer", make_bert}, {"FixedLength", make_fixed_length},
    {"Sequence", make_sequence},     {"UnicodeScripts", nullptr},
};

void add_part(const Json& part, std::string_view where, Steps& steps) {
  find_part<Make>(part, kKinds, "pre-tokenizer", where)(part, where, steps);
}

}  // namespace

PreTokenizer PreTokenizer::from_json(const Json& part, std::string_view where) {
  PreTokenizer pre_tokenizer;
  if (!part.is_null()) add_part(part, where, pre_tokenizer.steps_);
  return pre_tokenizer;
}

void PreTokenizer::apply(std::vector<Piece>& pieces) const {
  const auto bytes = [&] {
    return std::accumulate(pieces.begin(), pieces.end(), size_t{0},
                           [](size_t sum, const Piece& piece) { return sum + piece.text.size(); });
  };
  const size_t most = most_built_bytes(bytes());
  for (const Step& step : steps_) {
    step(pieces);
    check_built(bytes(), most);
  }
}

void replace_all(Piece& piece, std::span<const TextRange> matches, std::string_view content) {
  if (matches.empty()) return;
  check_built(content.empty() ? 0 : matches.size() * content.size(), piece.most_bytes);
  std::string out;
  out.reserve(piece.text.size() + matches.size() * content.size());
  size_t done = 0, first_bytes = 0;
  const auto keep = [&](size_t end) {
    out.append(piece.text, done, end - done);
    if (done < piece.first_bytes) first_bytes += std::min(end, piece.first_bytes) - done;
  };
  for (const TextRange& match : matches) {
    keep(match.begin);
    out += content;
    // What is put in belongs to the last character that goes out, or to the one before an empty match.
    if (piece.first_bytes > 0 && (match.end == 0 || match.end - 1 < piece.first_bytes)) first_bytes += content.size();
    done = match.end;
  }
  keep(piece.text.size());
  piece.text = std::move(out);
  piece.first_bytes = first_bytes;
}

void to_byte_characters(Piece& piece) {
  std::string out;
  out.reserve(piece.text.size() * 2);
  size_t first_bytes = 0;
  for (size_t i = 0; i < piece.text.size(); ++i) {
    append_utf8(out, kByteCharacters[static_cast<uint8_t>(piece.text[i])]);
    if (i < piece.first_bytes) first_bytes = out.size();
  }
  piece.text = std::move(out);
  piece.first_bytes = first_bytes;
}

}  // namespace salient::models
