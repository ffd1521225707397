#include "models/text/normalizer.h"

#include <utility>

#include "models/text/part_table.h"
#include "models/text/pre_tokenizer.h"
#include "models/text/text_pattern.h"
#include "models/text/unicode.h"
#include "models/text/utf8.h"

namespace salient::models {
namespace {

using Steps = std::vector<Normalizer::Step>;
using Make = void (*)(const Json&, std::string_view, Steps&);

void add_part(const Json& part, std::string_view where, Steps& steps);

// Rewrites character by character; `rewrite(code, out)` appends what becomes of one.
template <typename Rewrite>
void rewrite_characters(Piece& piece, Rewrite rewrite) {
  std::string out;
  out.reserve(piece.text.size());
  size_t first_bytes = 0;
  for (size_t i = 0; i < piece.text.size();) {
    const bool first = i < piece.first_bytes;
    rewrite(next_code_point(piece.text, i), out);
    if (first) first_bytes = out.size();
  }
  piece.text = std::move(out);
  piece.first_bytes = first_bytes;
}

template <NormalizationForm kForm>
void make_form(const Json&, std::string_view, Steps& steps) {
  steps.push_back([](Piece& piece) {
    if (piece.first_bytes > 0) {
      const size_t first = std::min(piece.first_bytes, piece.text.size());
      piece.first_bytes = normalize(std::string_view(piece.text).substr(0, first), kForm).size();
    }
    piece.text = normalize(piece.text, kForm);
    piece.first_bytes = std::min(piece.first_bytes, piece.text.size());
  });
}

void make_lowercase(const Json&, std::string_view, Steps& steps) {
  steps.push_back(
      [](Piece& piece) { rewrite_characters(piece, [](char32_t code, std::string& out) { append_lower_case(out, code); }); });
}

void make_strip_accents(const Json&, std::string_view, Steps& steps) {
  steps.push_back([](Piece& piece) {
    rewrite_characters(piece, [](char32_t code, std::string& out) {
      if (!is_combining_mark(code)) append_utf8(out, code);
    });
  });
}

// The text preparation of SentencePiece's "nmt" rules: control characters vanish, exotic spaces become spaces.
void make_nmt(const Json&, std::string_view, Steps& steps) {
  steps.push_back([](Piece& piece) {
    rewrite_characters(piece, [](char32_t code, std::string& out) {
      const bool removed = (code >= 0x01 && code <= 0x08) || code == 0x0B || (code >= 0x0E && code <= 0x1F) || code == 0x7F ||
                           code == 0x8F || code == 0x9F;
      const bool space = code == 0x09 || code == 0x0A || code == 0x0C || code == 0x0D || code == 0x1680 ||
                         (code >= 0x200B && code <= 0x200F) || code == 0x2028 || code == 0x2029 || code == 0x2581 ||
                         code == 0xFEFF || code == 0xFFFD;
      if (!removed) append_utf8(out, space ? U' ' : code);
    });
  });
}

void make_strip(const Json& part, std::string_view where, Steps& steps) {
  const bool left = require<bool>(part, "strip_left", where);
  const bool right = require<bool>(part, "strip_right", where);
  steps.push_back([left, right](Piece& piece) {
    TextRange kept{0, piece.text.size()};
    while (left && kept.begin < kept.end) {
      size_t next = kept.begin;
      if (!is_white_space(next_code_point(piece.text, next))) break;
      kept.begin = next;
    }
    while (right && kept.end > kept.begin) {
      const char32_t code = code_point_before(piece.text, kept.end);
      if (!is_white_space(code)) break;
      std::string encoded;
      append_utf8(encoded, code);
      kept.end -= encoded.size();
    }
    // The text changes, its place in the input does not: at_input_start stays.
    const bool at_start = piece.at_input_start;
    piece = piece.slice(kept);
    piece.at_input_start = at_start;
  });
}

void make_prepend(const Json& part, std::string_view where, Steps& steps) {
  steps.push_back([prefix = require<std::string>(part, "prepend", where)](Piece& piece) { piece.prepend(prefix); });
}

void make_replace(const Json& part, std::string_view where, Steps& steps) {
  steps.push_back([pattern = TextPattern::from_json(part, "pattern", where),
                   content = require<std::string>(part, "content", where)](Piece& piece) {
    replace_all(piece, pattern.find_all(piece.text), content);
  });
}

void make_byte_level(const Json&, std::string_view, Steps& steps) { steps.push_back(to_byte_characters); }

void make_sequence(const Json& part, std::string_view where, Steps& steps) {
  const Json list = require_list(part, "normalizers", where);
  for (size_t i = 0; i < list.size(); ++i) add_part(list[i], element_name(where, "normalizers", i), steps);
}

constexpr PartKind<Make> kKinds[] = {
    {"NFC", make_form<NormalizationForm::kNfc>},
    {"NFD", make_form<NormalizationForm::kNfd>},
    {"NFKC", make_form<NormalizationForm::kNfkc>},
    {"NFKD", make_form<NormalizationForm::kNfkd>},
    {"Lowercase", make_lowercase},
    {"Strip", make_strip},
    {"StripAccents", make_strip_accents},
    {"Prepend", make_prepend},
    {"Replace", make_replace},
    {"Nmt", make_nmt},
    {"ByteLevel", make_byte_level},
    {"Sequence", make_sequence},
    {"BertNormalizer", nullptr},
    {"Precompiled", nullptr},
};

void add_part(const Json& part, std::string_view where, Steps& steps) {
  find_part<Make>(part, kKinds, "normalizer", where)(part, where, steps);
}

}  // namespace

Normalizer Normalizer::from_json(const Json& part, std::string_view where) {
  Normalizer normalizer;
  if (!part.is_null()) add_part(part, where, normalizer.steps_);
  return normalizer;
}

void Normalizer::apply(Piece& piece) const {
  piece.most_bytes = most_built_bytes(piece.text.size());
  for (const Step& step : steps_) {
    step(piece);
    check_built(piece.text.size(), piece.most_bytes);
  }
}

std::string Normalizer::apply(std::string_view text) const {
  Piece piece;
  piece.text = text;
  apply(piece);
  return piece.text;
}

}  // namespace salient::models
