// Where the Unicode versions inside the `tokenizers` library differ from utf8proc's and PCRE2's. Rows made by
// scripts/goldens/tokenizer_unicode_tables.py; sorted, not overlapping.
#pragma once

#include <span>

namespace salient::models {

struct CodeRange {
  char32_t first, last;
};
struct StandIn {
  char32_t first, last;
  char32_t code;
};

extern const std::span<const StandIn> kStandIns;                    // see with_stand_ins
extern const std::span<const CodeRange> kMarksUnknownToNormalizer;  // marks that it takes for starters
extern const std::span<const CodeRange> kUnknownToNormalizer;       // other code points that it does not decompose
extern const std::span<const CodeRange> kPunctuationUnknown;        // category P, but not for the library

}  // namespace salient::models
