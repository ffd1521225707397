#include "models/text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "common/error.h"
#include "common/log.h"
#include "models/text/unicode.h"
#include "models/text/utf8.h"

namespace salient::models {
namespace {

AddedToken read_token(const Json& item, std::string_view where) {
  AddedToken token;
  token.content = require<std::string>(item, "content", where);
  token.special = value_or<bool>(item, "special", false, where);
  token.single_word = value_or<bool>(item, "single_word", false, where);
  token.lstrip = value_or<bool>(item, "lstrip", false, where);
  token.rstrip = value_or<bool>(item, "rstrip", false, where);
  token.normalized = value_or<bool>(item, "normalized", !token.special, where);
  return token;
}

size_t start_of_trailing_space(std::string_view text, size_t end) {
  while (end > 0) {
    size_t start = end - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    size_t after = start;
    if (!is_white_space(next_code_point(text, after))) break;
    end = start;
  }
  return end;
}

size_t end_of_leading_space(std::string_view text, size_t start) {
  while (start < text.size()) {
    size_t next = start;
    if (!is_white_space(next_code_point(text, next))) break;
    start = next;
  }
  return start;
}

}  // namespace

AddedTokens AddedTokens::from_json(const Json& list, std::string_view where, const Bpe& bpe, const Normalizer& normalizer) {
  AddedTokens added;
  if (list.is_null()) return added;
  if (!list.is_array()) fail(ErrorKind::kCorruption, "{}: found {}, expected a list", where, list.type_name());
  auto next_id = static_cast<TokenId>(bpe.size());
  bool any_single_word = false;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string item_where = fmt::format("{}[{}]", where, i);
    AddedToken token = read_token(list[i], item_where);
    const auto declared = value_or<int64_t>(list[i], "id", -1, item_where);
    if (token.content.empty()) continue;
    auto id = added.token_to_id(token.content);
    if (id && added.tokens_.contains(*id) && added.tokens_.at(*id) == token) continue;
    if (!id) id = bpe.token_to_id(token.content);
    if (!id) id = next_id++;
    if (declared >= 0 && declared != *id) {
      log_warn("added_token_id file={} token={:?} declared={} used={} reason=\"ids follow the vocabulary without gaps\"", where,
               token.content, declared, *id);
    }
    if (token.normalized) {
      if (std::string normalized = normalizer.apply(token.content); normalized != token.content)
        added.normalized_[*id] = std::move(normalized);
    }
    added.ids_[token.content] = *id;
    if (token.special) added.special_.insert(token.content);
    any_single_word = any_single_word || token.single_word;
    added.tokens_[*id] = std::move(token);
  }
  for (const auto& [id, token] : added.tokens_) {
    if (token.normalized) {
      added.after_normalization_.add(*added.id_to_token(id), id);
    } else {
      added.raw_.add(token.content, id);
    }
  }
  if (any_single_word) added.word_.emplace(R"(\A[[:word:]\x{200C}\x{200D}]\z)", where);
  return added;
}

std::optional<TokenId> AddedTokens::token_to_id(std::string_view content) const {
  const auto it = ids_.find(content);
  return it != ids_.end() ? std::optional(it->second) : std::nullopt;
}

const std::string* AddedTokens::id_to_token(TokenId id) const {
  const auto token = tokens_.find(id);
  if (token == tokens_.end()) return nullptr;
  const auto normalized = normalized_.find(id);
  return normalized != normalized_.end() ? &normalized->second : &token->second.content;
}

void AddedTokens::cut(const Piece& piece, const StringMatcher& matcher, std::vector<Piece>& out) const {
  const std::string_view text = piece.text;
  const auto is_word = [&](char32_t code) {
    std::string character;
    append_utf8(character, code);
    return !word_->find_all(character).empty();
  };
  const auto add_text = [&](size_t begin, size_t end) {
    if (begin < end) out.push_back(piece.slice({begin, end}));
  };
  size_t done = 0;
  for (const StringMatcher::Match& match : matcher.find_all(text)) {
    const AddedToken& token = tokens_.at(match.value);
    auto [begin, end] = match.range;
    if (token.single_word) {
      size_t after = end;
      if (begin > 0 && is_word(code_point_before(text, begin))) continue;
      if (end < text.size() && is_word(next_code_point(text, after))) continue;
    }
    if (token.lstrip) begin = std::max(start_of_trailing_space(text, begin), done);
    if (token.rstrip) end = end_of_leading_space(text, end);
    add_text(done, begin);
    Piece found;
    found.id = match.value;
    out.push_back(std::move(found));
    // Behind a token with rstrip a match may lie inside the space that it took; the library goes back to that match's end, and so
    // does this.
    done = end;
  }
  add_text(done, text.size());
}

std::vector<Piece> AddedTokens::split(std::string_view text, const Normalizer& normalizer) const {
  Piece whole;
  whole.text = text;
  whole.at_input_start = true;
  if (!text.empty()) next_code_point(text, whole.first_bytes);
  std::vector<Piece> raw, pieces;
  cut(whole, raw_, raw);
  size_t built = 0;
  for (Piece& piece : raw) {
    if (piece.id) {
      pieces.push_back(std::move(piece));
      continue;
    }
    normalizer.apply(piece);
    built += piece.text.size();
    check_built(built, most_built_bytes(text.size()));  // of all together: a prefix for each piece adds up, too
    cut(piece, after_normalization_, pieces);
  }
  return pieces;
}

}  // namespace salient::models
