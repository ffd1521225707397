#include "models/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "common/error.h"
#include "models/text/unicode_tables.h"
#include "models/text/utf8.h"

namespace salient::models {
namespace {

template <typename Row>
const Row* find_row(std::span<const Row> rows, char32_t code) {
  const auto it = std::upper_bound(rows.begin(), rows.end(), code, [](char32_t c, const Row& row) { return c < row.first; });
  return it != rows.begin() && code <= std::prev(it)->last ? &*std::prev(it) : nullptr;
}

char32_t stand_in(char32_t code) {
  const StandIn* row = find_row(kStandIns, code);
  return row != nullptr ? row->code : code;
}

utf8proc_category_t category(char32_t code) { return utf8proc_category(static_cast<utf8proc_int32_t>(code)); }

// U+11A7 is no jamo, but utf8proc 2.8 composes it with a syllable before it; nothing combines with it, so it may count as unknown.
bool known_to_normalizer(char32_t code) {
  return code != 0x11A7 && find_row(kStandIns, code) == nullptr && find_row(kMarksUnknownToNormalizer, code) == nullptr &&
         find_row(kUnknownToNormalizer, code) == nullptr;
}

struct LowerCase {
  char32_t first, last, lower_of_first;
};
// Capitals of Unicode 16 and 17 (CaseFolding.txt).
constexpr LowerCase kNewCapitals[] = {
    {0x1C89, 0x1C89, 0x1C8A},    {0xA7CB, 0xA7CB, 0x0264},    {0xA7CC, 0xA7CC, 0xA7CD}, {0xA7CE, 0xA7CE, 0xA7CF},
    {0xA7D2, 0xA7D2, 0xA7D3},    {0xA7D4, 0xA7D4, 0xA7D5},    {0xA7DA, 0xA7DA, 0xA7DB}, {0xA7DC, 0xA7DC, 0x019B},
    {0x10D50, 0x10D65, 0x10D70}, {0x16EA0, 0x16EB8, 0x16EBB},
};

// A stretch of text between two code points that the normalizer does not know, which nothing combines across.
class Stretch {
 public:
  explicit Stretch(NormalizationForm form)
      : compose_(form == NormalizationForm::kNfc || form == NormalizationForm::kNfkc),
        options_(static_cast<utf8proc_option_t>(
            UTF8PROC_DECOMPOSE | UTF8PROC_STABLE |
            (form == NormalizationForm::kNfkc || form == NormalizationForm::kNfkd ? UTF8PROC_COMPAT : 0))) {}

  void add(char32_t code) {
    std::array<utf8proc_int32_t, 32> parts;
    int boundary = 0;
    const auto count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), parts.data(), parts.size(), options_, &boundary);
    if (count < 0 || count > static_cast<utf8proc_ssize_t>(parts.size())) {
      fail(ErrorKind::kInternal, "utf8proc cannot decompose U+{:04X}: {}", static_cast<uint32_t>(code), utf8proc_errmsg(count));
    }
    codes_.insert(codes_.end(), parts.begin(), parts.begin() + count);
  }

  void flush(std::string& out) {
    for (auto it = codes_.begin(); it != codes_.end();) {
      if (combining_class(*it) == 0) {
        ++it;
        continue;
      }
      const auto end = std::find_if(it, codes_.end(), [](utf8proc_int32_t c) { return combining_class(c) == 0; });
      std::stable_sort(it, end, [](utf8proc_int32_t a, utf8proc_int32_t b) { return combining_class(a) < combining_class(b); });
      it = end;
    }
    auto length = static_cast<utf8proc_ssize_t>(codes_.size());
    if (compose_ && length > 0) {
      length = utf8proc_normalize_utf32(codes_.data(), length, static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
      if (length < 0) fail(ErrorKind::kInternal, "utf8proc cannot compose: {}", utf8proc_errmsg(length));
    }
    for (utf8proc_ssize_t i = 0; i < length; ++i) append_utf8(out, static_cast<char32_t>(codes_[i]));
    codes_.clear();
  }

 private:
  static int combining_class(utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; }

  bool compose_;
  utf8proc_option_t options_;
  std::vector<utf8proc_int32_t> codes_;
};

}  // namespace

bool is_white_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
         code == 0x3000;
}

bool is_numeric(char32_t code) {
  if (code < 0x80) return code >= '0' && code <= '9';
  if (code >= 0x11DE0 && code <= 0x11DE9) return true;  // Tolong Siki digits, Unicode 17
  const auto kind = category(stand_in(code));
  return kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_NL || kind == UTF8PROC_CATEGORY_NO;
}

bool is_punctuation(char32_t code) {
  if (code < 0x80) {
    return (code >= 0x21 && code <= 0x2F) || (code >= 0x3A && code <= 0x40) || (code >= 0x5B && code <= 0x60) ||
           (code >= 0x7B && code <= 0x7E);
  }
  if (code == 0x166D || code == 0x111C9) return true;  // other categories since Unicode 12
  const auto kind = category(code);
  return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO && find_row(kPunctuationUnknown, code) == nullptr;
}

bool is_combining_mark(char32_t code) {
  if (code == 0x1CF2 || code == 0x1CF3) return true;  // letters since Unicode 12
  const auto kind = category(code);
  if (kind != UTF8PROC_CATEGORY_MN && kind != UTF8PROC_CATEGORY_MC && kind != UTF8PROC_CATEGORY_ME) return false;
  return code == 0x1171E || known_to_normalizer(code);
}

void append_lower_case(std::string& out, char32_t code) {
  if (code == 0x0130) {
    out += "i\xCC\x87";
    return;
  }
  for (const LowerCase& row : kNewCapitals) {
    if (code >= row.first && code <= row.last) return append_utf8(out, row.lower_of_first + (code - row.first));
  }
  append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))));
}

std::string normalize(std::string_view text, NormalizationForm form) {
  std::string out;
  out.reserve(text.size());
  Stretch stretch(form);
  for (size_t i = 0; i < text.size();) {
    // An ASCII character that another one follows is the same in every form.
    if (static_cast<unsigned char>(text[i]) < 0x80 && (i + 1 == text.size() || static_cast<unsigned char>(text[i + 1]) < 0x80)) {
      stretch.flush(out);
      out += text[i++];
      continue;
    }
    const char32_t code = next_code_point(text, i);
    if (known_to_normalizer(code)) {
      stretch.add(code);
    } else {
      stretch.flush(out);
      append_utf8(out, code);
    }
  }
  stretch.flush(out);
  return out;
}

std::string with_stand_ins(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      out += text[i++];
      continue;
    }
    const size_t start = i;
    const char32_t code = next_code_point(text, i);
    const char32_t replacement = stand_in(code);
    if (replacement == code) {
      out.append(text, start, i - start);
    } else {
      append_utf8(out, replacement);
    }
  }
  return out;
}

}  // namespace salient::models
