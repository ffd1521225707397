// Byte-pair encoding, the "model" of a tokenizer.json. A word starts as its characters; the pair with the lowest rank in the list
// of merges, leftmost first, is joined until none is left. Paper: Sennrich et al., https://arxiv.org/abs/1508.07909
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/json.h"
#include "models/text/pair_table.h"
#include "models/text/tokenizer.h"

namespace salient::models {

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

class Bpe {
 public:
  // `model`: the "model" object, of type BPE (or without type). Errors: corruption, unsupported (another type, dropout).
  static Bpe from_json(const Json& model, std::string_view where);

  // Appends the ids of one word, in n log n. A character that is not in the vocabulary becomes its bytes "<0xHH>" (byte_fallback),
  // else the unknown token, else nothing. Errors: corruption, where an unknown token is needed and is not in the vocabulary.
  void encode(std::string_view word, std::vector<TokenId>& ids) const;

  std::optional<TokenId> token_to_id(std::string_view token) const;
  const std::string* id_to_token(TokenId id) const;   // null when there is none
  size_t size() const { return ids_.size(); }         // number of tokens; ids may have gaps
  TokenId largest_id() const { return largest_id_; }  // -1 for an empty vocabulary

 private:
  struct Symbol;
  void read_vocabulary(const Json& model, std::string_view where);
  void read_merges(const Json& model, std::string_view where);
  std::vector<Symbol> start_symbols(std::string_view word) const;
  void merge_all(std::vector<Symbol>& symbols) const;

  std::unordered_map<std::string, TokenId, StringHash, std::equal_to<>> ids_;
  std::unordered_map<TokenId, const std::string*> tokens_;  // into ids_, whose nodes stay where they are
  PairTable merges_;
  TokenId largest_id_ = -1;
  std::optional<std::string> unk_token_;
  std::string continuing_subword_prefix_;
  std::string end_of_word_suffix_;
  bool fuse_unk_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
  std::vector<std::optional<TokenId>> byte_tokens_;  // of "<0x00>" ... "<0xFF>"
  std::vector<TokenId> short_characters_;            // of the code points below kShortCharacters; -1 where there is none
};

}  // namespace salient::models
