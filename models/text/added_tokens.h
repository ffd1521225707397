// The "added_tokens" of a tokenizer.json: strings that are found in the text before anything is split, and become one id each.
// Meaning of the flags: https://huggingface.co/docs/tokenizers/api/added-tokens
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "common/json.h"
#include "models/text/bpe.h"
#include "models/text/normalizer.h"
#include "models/text/piece.h"
#include "models/text/string_matcher.h"

namespace salient::models {

struct AddedToken {
  std::string content;
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and behind it
  bool normalized = false;   // is looked for, normalized itself, in normalized text
  bool special = false;      // is left out by decode(skip_special_tokens)

  bool operator==(const AddedToken&) const = default;
};

class AddedTokens {
 public:
  // `list`: the array, or null for none. A token gets the id that the vocabulary has for it, else the next free one, whatever "id"
  // says (the library does so and warns, as this does). Errors: corruption.
  static AddedTokens from_json(const Json& list, std::string_view where, const Bpe& bpe, const Normalizer& normalizer);

  // The whole input as pieces: tokens that are not normalized are cut out, the rest is normalized, then the others are cut out.
  // Empty pieces vanish.
  std::vector<Piece> split(std::string_view text, const Normalizer& normalizer) const;

  std::optional<TokenId> token_to_id(std::string_view content) const;
  // What a decoder sees: the normalized content of normalized tokens. Null when `id` is no added token.
  const std::string* id_to_token(TokenId id) const;
  bool is_special(std::string_view token) const { return special_.contains(token); }
  TokenId largest_id() const { return tokens_.empty() ? -1 : tokens_.rbegin()->first; }

 private:
  void cut(const Piece& piece, const StringMatcher& matcher, std::vector<Piece>& out) const;

  std::map<TokenId, AddedToken> tokens_;
  std::map<TokenId, std::string> normalized_;  // where it differs from the content
  std::unordered_map<std::string, TokenId, StringHash, std::equal_to<>> ids_;
  std::unordered_set<std::string, StringHash, std::equal_to<>> special_;
  StringMatcher raw_;
  StringMatcher after_normalization_;
  std::optional<Regex> word_;  // one word character; only where a token is single_word
};

}  // namespace salient::models
